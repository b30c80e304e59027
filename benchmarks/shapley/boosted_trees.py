"""Gradient-boosted regression trees on coalitions, and their exact Shapley values.

The settings are the defaults of XGBoost (100 trees of depth 6, a learning rate of .3, a penalty of 1). A leaf is a
value that is paid where some players are present and some absent, whose Shapley value is known in closed form.
"""

from dataclasses import dataclass
from math import factorial

import numpy as np

TREES, DEPTH, RATE, PENALTY = 100, 6, 0.3, 1.0


@dataclass(frozen=True)
class Leaf:
    """The value of coalitions with some players and without some others."""

    present: tuple[int, ...]
    absent: tuple[int, ...]
    value: float

    def shapley(self, players: int) -> np.ndarray:
        """Return the Shapley value of the leaf's game, (players,)."""
        shares, count = np.zeros(players), factorial(len(self.present) + len(self.absent))
        if self.present:
            shares[list(self.present)] = factorial(len(self.present) - 1) * factorial(len(self.absent)) / count
        if self.absent:
            shares[list(self.absent)] = -factorial(len(self.present)) * factorial(len(self.absent) - 1) / count
        return shares * self.value


@dataclass(frozen=True)
class BoostedTrees:
    """A sum of leaves and a constant."""

    leaves: tuple[Leaf, ...]

    def predict(self, coalitions: np.ndarray) -> np.ndarray:
        """Return the values of coalitions (coalitions, players), (coalitions,)."""
        values = np.zeros(len(coalitions))
        for leaf in self.leaves:
            inside = coalitions[:, list(leaf.present)].all(1) & ~coalitions[:, list(leaf.absent)].any(1)
            values[inside] += leaf.value
        return values

    def shapley(self, players: int) -> np.ndarray:
        """Return the exact Shapley value, (players,)."""
        return sum((leaf.shapley(players) for leaf in self.leaves), np.zeros(players))


def fit_trees(coalitions: np.ndarray, values: np.ndarray) -> BoostedTrees:
    """Fit trees to the values of coalitions.

    Args:
        coalitions: booleans, (coalitions, players).
        values: (coalitions,).
    """
    residual, members = values.astype(float), coalitions.astype(float)
    leaves: list[Leaf] = []
    for _ in range(TREES):
        stack = [(np.arange(len(values)), (), ())]
        while stack:
            rows, present, absent = stack.pop()
            split = _best_split(members[rows], residual[rows]) if len(present) + len(absent) < DEPTH else None
            if split is None:
                value = RATE * residual[rows].sum() / (len(rows) + PENALTY)
                leaves.append(Leaf(present, absent, float(value)))
                residual[rows] -= value
                continue
            has_player = coalitions[rows, split]
            stack.append((rows[has_player], (*present, split), absent))
            stack.append((rows[~has_player], present, (*absent, split)))
    return BoostedTrees(tuple(leaves))


def _best_split(members: np.ndarray, residual: np.ndarray) -> int | None:
    """Return the player whose presence explains most of the residual, or None."""
    counts, sums = members.sum(0), members.T @ residual  # (players,)
    total, size = residual.sum(), len(residual)
    gains = sums**2 / (counts + PENALTY) + (total - sums) ** 2 / (size - counts + PENALTY)
    gains[(counts < 1) | (counts > size - 1)] = -np.inf
    player = int(gains.argmax())
    return player if gains[player] > total**2 / (size + PENALTY) + 1e-15 else None
