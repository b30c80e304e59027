"""The version of Secateur."""

__version__ = "0.2.0"
