"""Comparisons of results, bit for bit."""

import torch

import secateur as sc


def are_same_scores(one: sc.Scores, other: sc.Scores) -> bool:
    """Return True if two scores have the same groups, with the same values and errors to the bit."""
    return list(one) == list(other) and all(
        torch.equal(getattr(one[name], field), getattr(other[name], field))
        for name in one for field in ("values", "errors", "errors_here", "per_example")
    )  # fmt: skip
