"""The version of Secateur."""

__version__ = "0.3.0"
