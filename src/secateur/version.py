"""The version of Secateur."""

__version__ = "0.6.0"
