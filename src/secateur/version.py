"""The version of Secateur."""

__version__ = "0.8.0"
