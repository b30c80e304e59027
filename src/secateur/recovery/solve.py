"""Ridge least squares from moments: what rows and targets add up to, however many there were."""

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Moments:
    """Sums over rows, in float64, for each group of a layer.

    Args:
        gram: of the features with each other (groups, features, features).
        moment: of the features with what is missing of the target (groups, features, outputs).
        square: of what is missing (groups, outputs).
        rows: how many.
    """

    gram: Tensor
    moment: Tensor
    square: Tensor
    rows: int

    @staticmethod
    def of(rows: Tensor, missing: Tensor) -> "Moments":
        """From rows (rows, groups, features) and what is missing (rows, groups, outputs)."""
        features, left = rows.transpose(0, 1), missing.transpose(0, 1)
        gram, moment = features.transpose(1, 2) @ features, features.transpose(1, 2) @ left
        return Moments(gram.double(), moment.double(), left.double().square().sum(1), len(rows))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.gram + other.gram, self.moment + other.moment, self.square + other.square, self.rows + other.rows
        )

    def solved(self, ridge: float) -> Tensor:
        """The change of the weights that leaves least, with a penalty on it. (groups, features, outputs)

        The penalty is a part of the mean square of a feature, the last one, a constant, is free of it.
        """
        scale = self.gram.diagonal(dim1=1, dim2=2).mean().clamp_min(1e-12)
        penalty = torch.full(self.gram.shape[1:2], ridge, dtype=torch.float64, device=self.gram.device) * scale
        solution: Tensor = torch.linalg.solve(self.gram + torch.diag(penalty), self.moment)
        return solution

    def left(self, change: Tensor) -> float:
        """The mean square that is still missing after a change."""
        explained = 2 * (change * self.moment).sum() - (change * (self.gram @ change)).sum()
        return float(self.square.sum() - explained) / max(self.rows, 1)


@dataclass(frozen=True)
class Solution:
    """How weights change, and what that leaves.

    Args:
        change: (groups, features, outputs).
        ridge: the one chosen; None where no change helps.
        before, after: the mean square missing on rows held out.
    """

    change: Tensor
    ridge: float | None
    before: float
    after: float


def choose(fitted: Moments, held: Moments) -> Solution:
    """The ridge that leaves least on rows held out, and the change by it from all rows."""
    before = held.left(torch.zeros_like(held.moment))
    best, after = None, before
    for ridge in RIDGES:
        left = held.left(fitted.solved(ridge))
        if left < after:
            best, after = ridge, left
    change = torch.zeros_like(held.moment) if best is None else (fitted + held).solved(best)
    return Solution(change, best, before, after)
