"""Losses, metrics, hold-out splits and timing."""
