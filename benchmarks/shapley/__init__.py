"""Shapley values: error against coalitions and seconds, beside peers on the same value function."""
