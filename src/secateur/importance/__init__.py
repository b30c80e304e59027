"""Criteria: a score for each unit."""
