"""The version of Secateur."""

__version__ = "0.10.0"
