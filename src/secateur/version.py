"""The version of Secateur."""

__version__ = "0.5.0"
