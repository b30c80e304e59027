"""The version of Secateur."""

__version__ = "0.7.0"
