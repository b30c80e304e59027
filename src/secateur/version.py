"""The version of Secateur."""

__version__ = "0.15.0"
