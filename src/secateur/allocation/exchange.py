"""Sizes of groups that lose less within the same budget: one group larger, another one smaller."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

ROUNDS = 50
SHAPES = ((1, 0), (1, 1), (1, 2), (2, 1))  # how many groups get larger, and how many smaller
MOST_GROUPS = 16  # with more of them exchanges of three are too many
LEAST = 1e-12
MOST_TRIALS = 3000


def exchange_units(
    indices: Sequence[int],
    sizes: Sequence[np.ndarray],
    curves: Sequence[np.ndarray],
    fits: Callable[[Sequence[int]], bool],
) -> list[int]:
    """Exchange sizes between groups as long as the sum of the curves gets smaller.

    Where units are removed several at once, the order in which they are removed best is not the best choice at its end:
    sizes that fit together use a budget up.

    Args:
        indices: for each group the index of its size among `sizes`.
        sizes: the sizes that each group may have, ascending.
        curves: the loss by the number of removed units of a group. (units + 1,) each
        fits: whether a choice of indices meets the budget.

    Returns:
        The indices after the exchanges.

    Examples:
        >>> sizes, curves = [np.array([1, 2, 3])] * 2, [np.array([0.0, 1, 4, 9]), np.array([0.0, 2, 8, 18])]
        >>> exchange_units([2, 0], sizes, curves, lambda indices: sum(indices) <= 2)
        [1, 1]
    """
    losses = [curve[len(curve) - 1 - counts] for counts, curve in zip(sizes, curves, strict=True)]
    choice = list(indices)
    trials = 0
    for _ in range(ROUNDS):
        better_choice = None
        for trial in itertools.islice(_improvements(choice, losses), MOST_TRIALS - trials):
            trials += 1
            if fits(trial):
                better_choice = trial
                break
        if better_choice is None:
            break
        choice = better_choice
    return choice


def _improvements(choice: Sequence[int], losses: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Yield the choices that lose less, the best first: one or two groups larger by a size, at most two smaller."""
    changes: list[tuple[float, tuple[int, ...], tuple[int, ...]]] = []
    gains = {
        group: losses[group][index + 1] - losses[group][index]
        for group, index in enumerate(choice)
        if index + 1 < len(losses[group])
    }
    prices = {group: losses[group][index - 1] - losses[group][index] for group, index in enumerate(choice) if index > 0}
    for ups, downs in SHAPES if len(choice) <= MOST_GROUPS else SHAPES[:2]:
        for larger in itertools.combinations(gains, ups):
            gain = sum(gains[group] for group in larger)
            for smaller in itertools.combinations([group for group in prices if group not in larger], downs):
                change = gain + sum(prices[group] for group in smaller)
                if change < -LEAST:
                    changes.append((change, larger, smaller))
    for _, larger, smaller in sorted(changes):
        yield [index + (group in larger) - (group in smaller) for group, index in enumerate(choice)]
