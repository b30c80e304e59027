"""The version of Secateur."""

__version__ = "0.12.0"
