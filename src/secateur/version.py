"""The version of Secateur."""

__version__ = "0.9.0"
