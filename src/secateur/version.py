"""The version of Secateur."""

__version__ = "0.19.0"
