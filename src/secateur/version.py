"""The version of Secateur."""

__version__ = "0.13.0"
