"""Pruning of a language model: Secateur beside published methods, with and without the same repair."""
