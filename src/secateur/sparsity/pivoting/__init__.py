"""Weights reordered into few dense blocks."""
