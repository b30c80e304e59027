"""The version of Secateur."""

__version__ = "0.16.0"
