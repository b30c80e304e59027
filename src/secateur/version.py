"""The version of Secateur."""

__version__ = "0.14.0"
