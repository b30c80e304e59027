"""The version of Secateur."""

__version__ = "0.11.0"
