"""Comparisons of results."""

import torch

import secateur as sc


def are_same_scores(one: sc.Scores, other: sc.Scores) -> bool:
    """Return True if two scores have the same groups, with the same values and errors to the bit."""
    return list(one) == list(other) and all(
        _are_equal(getattr(one[name], field), getattr(other[name], field))
        for name in one for field in ("values", "errors", "errors_here", "per_example")
    )  # fmt: skip


def _are_equal(values: torch.Tensor, others: torch.Tensor) -> bool:
    """Return True if two tensors have the same values, NaN at the same places."""
    return values.shape == others.shape and torch.allclose(values, others, rtol=0, atol=0, equal_nan=True)


def assert_pruned_alike(result: sc.Result, expected: sc.Result) -> None:
    """Assert that two results have the same scores and weights, but for rounding."""
    for group in result.scores:
        values, expected_values = result.scores[group].values, expected.scores[group].values
        torch.testing.assert_close(values, expected_values, rtol=1e-4, atol=1e-5 * float(expected_values.max()))
    for parameter, other in zip(result.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-3, atol=1e-5)
