"""Prune: trace, score, plan, cut, repair and measure, in one call."""
