"""Ridge least squares from moments: what rows and targets add up to, however many there were."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.network.program import at_least_single

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Moments:
    """Sums over rows for each group of a layer: those of a cell as precise as its values, over cells in float64.

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
        features, left = (at_least_single(each).transpose(0, 1) for each in (rows, missing))
        gram, moment = features.transpose(1, 2) @ features, features.transpose(1, 2) @ left
        return Moments(gram.double(), moment.double(), left.double().square().sum(1), len(rows))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.gram + other.gram, self.moment + other.moment, self.square + other.square, self.rows + other.rows
        )

    def solved(self, ridge: float, has_constant: bool) -> Tensor:
        """The change of the weights that leaves least, with a penalty on it. (groups, features, outputs)

        The penalty is a part of the mean square of a feature; the last one, if it is a constant, is all but free of it.
        """
        squares = self.gram.diagonal(dim1=1, dim2=2)
        scale = (squares[:, :-1] if has_constant and squares.shape[1] > 1 else squares).mean().clamp_min(1e-12)
        penalty = torch.full(self.gram.shape[1:2], ridge, dtype=torch.float64, device=self.gram.device) * scale
        penalty[-1:] *= 1e-6 if has_constant else 1
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


def choose(fitted: Moments, held: Moments, has_constant: bool) -> Solution:
    """The ridge that leaves least on rows held out, and the change by it from all rows."""
    before = held.left(torch.zeros_like(held.moment))
    best, after = None, before
    for ridge in RIDGES:
        left = held.left(fitted.solved(ridge, has_constant))
        if left < after:
            best, after = ridge, left
    change = torch.zeros_like(held.moment) if best is None else (fitted + held).solved(best, has_constant)
    return Solution(change, best, before, after)
