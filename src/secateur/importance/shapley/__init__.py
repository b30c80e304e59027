"""Shapley values of units, with standard errors."""
