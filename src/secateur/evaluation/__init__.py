"""Evaluation: losses, measures of two networks side by side, hold-out splits, and timing."""
