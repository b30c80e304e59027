"""The version of Secateur."""

__version__ = "0.20.0"
