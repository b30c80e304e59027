"""Helpers without knowledge of networks."""
