"""The version of Secateur."""

__version__ = "0.1.0"
