"""The version of Secateur."""

__version__ = "0.4.0"
