"""Ridge least squares from moments: what rows and targets add up to, however many there were."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from secateur.network.program import at_least_single

STEPS = 10
SILENT = 1e-6
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Rows:
    """What a layer reads, and what its output lacks.

    Args:
        features: (groups, rows, features).
        missing: what is to be added to its output (groups, rows, outputs).
        least, most: between these any addition will do.
        held: which rows are of examples held out (rows,).
    """

    features: Tensor
    missing: Tensor
    least: Tensor
    most: Tensor
    held: Tensor

    def shifted(self, by: Tensor) -> "Rows":
        """The features but the last, the constant, less something (groups, 1, features - 1)."""
        return replace(self, features=torch.cat([self.features[..., :-1] - by, self.features[..., -1:]], 2))

    def where(self, chosen: Tensor) -> "Rows":
        features, missing, least, most = (each[:, chosen] for each in self._tensors)
        return Rows(features, missing, least, most, self.held[chosen])

    @staticmethod
    def joined(parts: Sequence["Rows"]) -> "Rows":
        values = zip(*(part._tensors for part in parts), strict=True)
        features, missing, least, most = (torch.cat(each, 1) for each in values)
        return Rows(features, missing, least, most, torch.cat([part.held for part in parts]))

    def lacking(self, change: Tensor) -> Tensor:
        """What is still to be added after a change (groups, features, outputs). (groups, rows, outputs)"""
        given = self.features @ change.to(self.features)
        return given.clamp(self.least, self.most) - given

    def left(self, change: Tensor) -> float:
        """The sum of squares of that."""
        return float(self.lacking(change).double().square().sum())

    @property
    def bytes(self) -> int:
        return sum(each.numel() * each.element_size() for each in self._tensors)

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        return self.features, self.missing, self.least, self.most


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
        """From rows (groups, rows, features) and what is missing (groups, rows, outputs)."""
        features, left = at_least_single(rows), at_least_single(missing)
        gram, moment = features.transpose(1, 2) @ features, features.transpose(1, 2) @ left
        return Moments(gram.double(), moment.double(), left.double().square().sum(1), rows.shape[1])

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.gram + other.gram, self.moment + other.moment, self.square + other.square, self.rows + other.rows
        )

    def solved(self, ridge: float, has_constant: bool) -> Tensor:
        """The change of the weights that leaves least, with a penalty on it. (groups, features, outputs)

        The penalty on a weight is a part of the mean square of its feature: however loudly a unit speaks, the same is
        asked of what its reader makes of it. The last one, if it is a constant, is all but free of it.
        """
        solution: Tensor = torch.linalg.solve(self.penalised(ridge, has_constant), self.moment)
        return solution

    def penalised(self, ridge: float, has_constant: bool) -> Tensor:
        """The Gram matrices with the penalty on their diagonals."""
        squares = self.gram.diagonal(dim1=1, dim2=2)  # (groups, features)
        mean = (squares[:, :-1] if has_constant and squares.shape[1] > 1 else squares).mean().clamp_min(1e-12)
        penalty = ridge * squares.clamp_min(SILENT * mean)
        penalty[:, -1:] = ridge * SILENT * mean if has_constant else penalty[:, -1:]
        return self.gram + torch.diag_embed(penalty)

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


class Held:
    """Rows that are held, to be solved for through a nonlinearity that cuts off: beyond its bounds nothing is missing.

    Majorised by a least squares problem with the same Gram matrix at every step, whose target is the nearest output
    that will do; steps are carried on as by Nesterov 1983.

    Args:
        memory: bytes that rows may take; what is beyond is left out.
    """

    def __init__(self, memory: int) -> None:
        self.memory, self.rows = memory, list[Rows]()

    def add(self, rows: Rows) -> None:
        self.memory -= rows.bytes
        if self.memory >= 0:
            self.rows.append(rows)

    def through(self, solution: Solution, moments: tuple[Moments, Moments], has_constant: bool) -> Tensor:
        """The change that leaves least of what is missing: as many steps as help on rows held out."""
        if solution.ridge is None:
            return solution.change
        rows, both = Rows.joined(self.rows), moments[0] + moments[1]
        fitted, held = rows.where(~rows.held), rows.where(rows.held)
        judged = [held.left(each) for each in _steps(fitted, moments[0], solution.ridge, has_constant)]
        best = min(range(len(judged)), key=judged.__getitem__)
        return next(islice(_steps(rows, both, solution.ridge, has_constant), best, None))


def _steps(rows: Rows, moments: Moments, ridge: float, has_constant: bool) -> Iterator[Tensor]:
    """The change as it is without bounds, and after each step. (groups, features, outputs)"""
    regular = moments.penalised(ridge, has_constant)
    factors = torch.linalg.lu_factor(regular)
    change = ahead = torch.linalg.lu_solve(*factors, moments.moment)
    weight, pace = moments.rows / max(len(rows.held), 1), 1.0
    yield change
    for _ in range(STEPS):
        moment = rows.features.transpose(1, 2) @ rows.lacking(ahead)
        now = ahead + torch.linalg.lu_solve(*factors, weight * moment.double())
        later = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        ahead = now + (pace - 1) / later * (now - change)
        change, pace = now, later
        yield change
