"""Ridge regression from moments of rows and targets."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from secateur.recovery.dual_ridge import DualRegression, DualSystem
from secateur.recovery.regression_rows import RegressionRows
from secateur.utils.dtypes import at_least_single

STEPS = 10
SILENT = 1e-6
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MIDDLE = 3
PATIENCE = 2
FEWER_ROWS = 2  # times as many features as rows, from which on the dual form is the cheaper one


@dataclass(frozen=True)
class RegressionMoments:
    """Sums over rows for each group of a layer, accumulated in float64.

    As long as rows are few beside features, they are held in place of the features' products.

    Args:
        gram: of the features with each other (groups, features, features); None where the rows are held.
        features: the rows (groups, rows, features); None where they are summed up.
        squares: of each feature (groups, features).
        moment: of the features with what is missing of the target (groups, features, outputs).
        square: of what is missing (groups, outputs).
        rows: how many.
    """

    gram: Tensor | None
    features: Tensor | None
    squares: Tensor
    moment: Tensor
    square: Tensor
    rows: int

    @staticmethod
    def of(rows: Tensor, missing: Tensor) -> "RegressionMoments":
        """Compute the moments of rows (groups, rows, features) and targets (groups, rows, outputs)."""
        features, targets = at_least_single(rows), at_least_single(missing)
        moment, square = (features.transpose(1, 2) @ targets).double(), targets.double().square().sum(1)
        if FEWER_ROWS * rows.shape[1] <= rows.shape[2]:
            return RegressionMoments(None, features, features.double().square().sum(1), moment, square, rows.shape[1])
        gram = _products(features)
        return RegressionMoments(gram, None, gram.diagonal(dim1=1, dim2=2), moment, square, rows.shape[1])

    def __add__(self, other: "RegressionMoments") -> "RegressionMoments":
        moment, square, rows = self.moment + other.moment, self.square + other.square, self.rows + other.rows
        squares = self.squares + other.squares
        if self.features is not None and other.features is not None and FEWER_ROWS * rows <= squares.shape[1]:
            return RegressionMoments(None, torch.cat([self.features, other.features], 1), squares, moment, square, rows)
        gram = self.summed() + other.summed()
        return RegressionMoments(gram, None, gram.diagonal(dim1=1, dim2=2), moment, square, rows)

    def summed(self) -> Tensor:
        """The Gram matrices (groups, features, features)."""
        if self.gram is not None:
            return self.gram
        assert self.features is not None
        return _products(self.features)

    def penalty(self, ridge: float, has_constant: bool) -> Tensor:
        """The penalty on each weight's change. (groups, features)

        The penalty on a weight is a part of the mean square of its feature: however loudly a unit speaks, the same is
        asked of what its consumer makes of it. The last one, if it is a constant, is all but free of it.
        """
        squares = self.squares
        mean = (squares[:, :-1] if has_constant and squares.shape[1] > 1 else squares).mean().clamp_min(1e-12)
        penalty = ridge * squares.clamp_min(SILENT * mean)
        penalty[:, -1:] = ridge * SILENT * mean if has_constant else penalty[:, -1:]
        return penalty

    def penalised(self, ridge: float, has_constant: bool) -> Tensor:
        """Add a ridge to the diagonals of the Gram matrices."""
        return self.summed() + torch.diag_embed(self.penalty(ridge, has_constant))

    def mean_square(self, change: Tensor) -> float:
        """Return the mean square that is lacking after a change."""
        if self.features is None:
            quadratic = (change * (self.summed() @ change)).sum()
        else:
            quadratic = (self.features.to(change) @ change).square().sum()
        explained = 2 * (change * self.moment).sum() - quadratic
        return float(self.square.sum() - explained) / max(self.rows, 1)


def _products(features: Tensor) -> Tensor:
    return (features.transpose(1, 2) @ features).double()


@dataclass(frozen=True)
class Choice:
    """The solver's options for a layer, chosen on held-out rows.

    Args:
        ridge: None where no change helps.
        steps: through the nonlinearity behind, after the plain solution.
    """

    ridge: float | None
    steps: int


class RidgeSystem:
    """The normal equations of moments with a ridge, factored once for several right sides."""

    def __init__(self, moments: RegressionMoments, ridge: float, has_constant: bool) -> None:
        regular = moments.penalised(ridge, has_constant)
        self._factor, failed = torch.linalg.cholesky_ex(regular)
        self._lu = torch.linalg.lu_factor(regular) if bool(failed.any()) else None
        self._single: Tensor | None = None
        self.solution = self.solve(moments.moment)

    def solve(self, right: Tensor) -> Tensor:
        """Solve for right sides (groups, features, outputs), in their precision."""
        if self._lu is not None:
            solution: Tensor = torch.linalg.lu_solve(*self._lu, right.double()).to(right)
            return solution
        if right.dtype == torch.float64:
            return torch.cholesky_solve(right, self._factor)
        self._single = self._factor.to(right) if self._single is None else self._single
        return torch.cholesky_solve(right, self._single)


System = RidgeSystem | DualSystem


def systems_of(moments: RegressionMoments, has_constant: bool) -> Callable[[float], System]:
    """Return a function from a ridge to its normal equations, in the cheaper form."""
    if moments.features is None:
        return lambda ridge: RidgeSystem(moments, ridge, has_constant)
    dual = DualRegression(moments.features, moments.penalty(1.0, has_constant), has_constant)
    return lambda ridge: dual.at(ridge, moments.moment)


class _Trial:
    """A ridge, and the mean square that its solution leaves on held-out rows."""

    def __init__(self, ridge: float, system: System, held_moments: RegressionMoments) -> None:
        self.ridge, self.system = ridge, system
        self.remaining = held_moments.mean_square(self.system.solution)


def select_ridge(
    fitted: RegressionMoments, held_moments: RegressionMoments, rows: RegressionRows | None, has_constant: bool
) -> Choice:
    """Select the ridge, and the number of steps through the nonlinearity, that are best on held-out rows.

    Ridges are tried from the middle on, in the direction in which less is left, as long as it falls.
    """
    system_at = systems_of(fitted, has_constant)
    best = _Trial(RIDGES[MIDDLE], system_at(RIDGES[MIDDLE]), held_moments)
    for ridges in (RIDGES[MIDDLE + 1 :], RIDGES[:MIDDLE][::-1]):
        for ridge in ridges:
            other = _Trial(ridge, system_at(ridge), held_moments)
            if not other.remaining < best.remaining:
                break
            best = other
        if best.ridge > RIDGES[MIDDLE]:
            break
    if not best.remaining < held_moments.mean_square(torch.zeros_like(held_moments.moment)):
        return Choice(None, 0)
    return Choice(best.ridge, 0 if rows is None else _best_step(rows, fitted, best.system))


def solve(moments: RegressionMoments, rows: RegressionRows | None, choice: Choice, has_constant: bool) -> Tensor:
    """Compute the selected change of the weights from all rows. (groups, features, outputs)"""
    if choice.ridge is None:
        return torch.zeros_like(moments.moment)
    system = systems_of(moments, has_constant)(choice.ridge)
    if rows is None or choice.steps == 0:
        return system.solution
    return next(islice(_steps(rows, moments, system), choice.steps, None))


def _best_step(rows: RegressionRows, fitted: RegressionMoments, system: System) -> int:
    """Return the number of steps that is best on held-out rows; stop after two steps without a gain."""
    held_rows = rows.where(rows.is_held)
    judged: list[float] = []
    for change in islice(_steps(rows.where(~rows.is_held), fitted, system), STEPS + 1):
        judged.append(held_rows.squared_error(change))
        if len(judged) > PATIENCE and min(judged[-PATIENCE:]) > min(judged[:-PATIENCE]):
            break
    return min(range(len(judged)), key=judged.__getitem__)


def _steps(rows: RegressionRows, moments: RegressionMoments, system: System) -> Iterator[Tensor]:
    """Yield the change without bounds, and the change after each step. (groups, features, outputs)"""
    change = ahead = system.solution
    weight, pace = moments.rows / max(len(rows.is_held), 1), 1.0
    yield change
    while True:
        moment = at_least_single(rows.features).transpose(1, 2) @ at_least_single(rows.lacking(ahead))
        now = ahead + system.solve(weight * moment)
        later = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        ahead = now + (pace - 1) / later * (now - change)
        change, pace = now, later
        yield change
