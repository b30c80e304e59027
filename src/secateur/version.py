"""The version of Secateur."""

__version__ = "0.17.0"
