"""Sizes of groups that lose less within the same budget: one group larger, another one smaller."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

ROUNDS = 50
SHAPES = ((1, 0), (1, 1), (1, 2), (2, 1))  # how many groups get larger, and how many smaller
MOST_GROUPS = 16  # with more of them exchanges of three are too many
LEAST = 1e-12
MOST_LOOKS = 3000


def exchange_units(
    places: Sequence[int],
    sizes: Sequence[np.ndarray],
    curves: Sequence[np.ndarray],
    fits: Callable[[Sequence[int]], bool],
) -> list[int]:
    """Exchange sizes between groups as long as the sum of the curves gets smaller.

    Where units go several at once, the order in which they go best is not the best choice at its end: sizes that fit
    together use a budget up.

    Args:
        places: for each group the place of its size among `sizes`.
        sizes: the sizes that each group may have, ascending.
        curves: what the loss grows by when so many units of a group are gone, (units + 1,) each.
        fits: whether a choice of places meets the budget.

    Example:
        >>> sizes, curves = [np.array([1, 2, 3])] * 2, [np.array([0.0, 1, 4, 9]), np.array([0.0, 2, 8, 18])]
        >>> exchange_units([2, 0], sizes, curves, lambda places: sum(places) <= 2)
        [1, 1]
    """
    losses = [curve[len(curve) - 1 - some] for some, curve in zip(sizes, curves, strict=True)]
    chosen = list(places)
    looks = 0
    for _ in range(ROUNDS):
        neighbours = itertools.islice(_neighbours(chosen, losses), MOST_LOOKS - looks)
        better = None
        for other in neighbours:
            looks += 1
            if fits(other):
                better = other
                break
        if better is None:
            break
        chosen = better
    return chosen


def _neighbours(chosen: Sequence[int], losses: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """The choices that lose less, the least first: one or two groups larger by a size, at most two others smaller."""
    changes: list[tuple[float, tuple[int, ...], tuple[int, ...]]] = []
    gains = {at: losses[at][place + 1] - losses[at][place] for at, place in enumerate(chosen)
             if place + 1 < len(losses[at])}  # fmt: skip
    prices = {at: losses[at][place - 1] - losses[at][place] for at, place in enumerate(chosen) if place > 0}
    for ups, downs in SHAPES if len(chosen) <= MOST_GROUPS else SHAPES[:2]:
        for larger in itertools.combinations(gains, ups):
            gain = sum(gains[at] for at in larger)
            for smaller in itertools.combinations([at for at in prices if at not in larger], downs):
                change = gain + sum(prices[at] for at in smaller)
                if change < -LEAST:
                    changes.append((change, larger, smaller))
    for _, larger, smaller in sorted(changes):
        other = list(chosen)
        for at in larger:
            other[at] += 1
        for at in smaller:
            other[at] -= 1
        yield other
