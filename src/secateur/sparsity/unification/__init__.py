"""Blocks of one absolute value, or of zero."""
