"""The version of Secateur."""

__version__ = "0.18.1"
