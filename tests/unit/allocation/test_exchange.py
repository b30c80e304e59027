"""Exchanges of sizes between groups, and the order of uniform allocations: exact cases."""

from typing import Any

import numpy as np
import pytest
import torch

from secateur.allocation import exchange
from secateur.allocation.exchange import MOST_TRIALS, exchange_units
from secateur.allocation.strategies import uniform


def test_the_loss_of_a_size_is_that_of_the_units_removed() -> None:
    """Of three units, group a loses nothing by the first two; group b one by any."""
    curves = [np.array([0.0, 0, 0, 10]), np.array([0.0, 1, 1, 1])]
    sizes = [np.array([1, 3]), np.array([1, 3])]
    assert exchange_units([1, 0], sizes, curves, lambda indices: sum(indices) <= 1) == [0, 1]
    curves = [np.array([0.0, 0, 2, 10]), np.array([0.0, 1, 1, 1])]
    assert exchange_units([1, 0], sizes, curves, lambda indices: sum(indices) <= 1) == [1, 0]


def test_one_group_larger_against_two_smaller() -> None:
    """An exchange of three groups, where none of two fits: the larger group weighs as much as both others."""
    curves = [np.array([0.0, 9]), np.array([0.0, 1]), np.array([0.0, 1])]
    sizes = [np.array([0, 1])] * 3
    weights = np.array([2, 1, 1])
    assert exchange_units([0, 1, 1], sizes, curves, lambda indices: int((weights * indices).sum()) <= 2) == [1, 0, 0]


def trials_of(answers: Any, groups: int) -> int:
    """Count the choices that are tried, from all groups at their smallest, for given answers."""
    count = 0

    def fits(indices: Any) -> bool:
        nonlocal count
        count += 1
        return bool(answers(count))

    sizes, curves = [np.arange(3)] * groups, [np.array([0.0, 1, 3])] * groups
    exchange_units([0] * groups, sizes, curves, fits)
    return count


def test_a_round_without_success_is_the_last() -> None:
    """One group larger, from none: as many choices as groups, each tried once."""
    assert trials_of(lambda count: False, 5) == 5


def test_all_rounds_together_try_a_limited_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST_TRIALS", 7)
    assert MOST_TRIALS > 7
    assert trials_of(lambda count: count == 5, 5) == 7


def test_a_uniform_order_takes_from_each_group_in_proportion() -> None:
    """Units at (k + 1/2) / n of their group: of two groups with 2 and 4 units."""
    values = [torch.zeros(2), torch.zeros(4)]
    assert uniform(None, values).tolist() == [1, 0, 1, 1, 0, 1]  # type: ignore[arg-type]


def test_the_best_choice_that_fits_is_taken_first() -> None:
    """With one exchange at a time, all of which fit: the first round tries the best alone."""
    seen: list[list[int]] = []

    def fits(indices: Any) -> bool:
        seen.append(list(indices))
        return True

    curves = [np.array([0.0, 1]), np.array([0.0, 9])]
    assert exchange_units([0, 0], [np.array([0, 1])] * 2, curves, fits) == [1, 1]
    assert seen == [[0, 1], [1, 1]]
