"""Pruning while a model is trained."""
