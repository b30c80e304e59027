"""Ridge regression from moments of rows and targets.

The Gram matrices of wide layers are larger than their weights, so they are factored in place, one ridge at a time.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice

import torch
from torch import Tensor

from secateur.recovery.dual_ridge import DualFactor, DualRegression
from secateur.recovery.regression_moments import RegressionMoments
from secateur.recovery.regression_rows import RegressionRows
from secateur.utils.dtypes import at_least_single
from secateur.utils.symmetric_matrices import factor_in_place

STEPS = 10
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MIDDLE = 3
PATIENCE = 2
WIDE = 4096  # features from which on one factorization is held at a time


@dataclass(frozen=True)
class Choice:
    """The solver's options for a layer, chosen on held-out rows.

    Args:
        ridge: None where no change helps.
        steps: through the nonlinearity behind, after the plain solution.
    """

    ridge: float | None
    steps: int


class RidgeFactor:
    """The normal equations of moments with a ridge, factored once for several right sides."""

    def __init__(self, moments: RegressionMoments, ridge: float, has_constant: bool) -> None:
        self._factor, failed = factor_in_place(moments.penalised_gram(ridge, has_constant))
        has_failed = bool(failed.any())
        self._lu = torch.linalg.lu_factor(moments.penalised_gram(ridge, has_constant)) if has_failed else None
        self._single: Tensor | None = None

    def solve(self, right: Tensor) -> Tensor:
        """Solve for right sides (groups, features, outputs), in their precision."""
        if self._lu is not None:
            solution: Tensor = torch.linalg.lu_solve(*self._lu, right.double()).to(right)
            return solution
        if right.dtype == torch.float64:
            return torch.cholesky_solve(right, self._factor)
        self._single = self._factor.to(right) if self._single is None else self._single
        return torch.cholesky_solve(right, self._single)


class System:
    """The normal equations with a ridge, and their solution.

    Args:
        factor: the equations.
        right: the right side (groups, features, outputs).
    """

    def __init__(self, factor: RidgeFactor | DualFactor, right: Tensor) -> None:
        self.solution, self.solve = factor.solve(right), factor.solve


def systems_of(moments: RegressionMoments, has_constant: bool) -> Callable[[float], System]:
    """Return a function from a ridge to its normal equations, in the cheaper form."""
    penalty_at, features = partial(moments.penalty, has_constant=has_constant), moments.features

    @cache
    def dual() -> DualRegression:
        assert features is not None
        return DualRegression(features, penalty_at, has_constant)

    def factor_at(ridge: float) -> RidgeFactor | DualFactor:
        return RidgeFactor(moments, ridge, has_constant) if features is None else dual().at(ridge)

    def system_at(ridge: float) -> System:
        factor = moments.inputs.shared_factor(ridge, penalty_at(ridge), partial(factor_at, ridge))
        return System(factor, moments.moment)

    return system_at


class _Trial:
    """A ridge, and the mean square that its solution leaves on held-out rows.

    Args:
        system_at: the function from a ridge to its normal equations.
        ridge: the ridge.
        held_moments: the moments of the held-out rows.
    """

    def __init__(self, system_at: Callable[[float], System], ridge: float, held_moments: RegressionMoments) -> None:
        self.ridge, self._system_at = ridge, system_at
        system = system_at(ridge)
        self.remaining = held_moments.mean_square(system.solution)
        self._system = None if held_moments.squares.shape[1] > WIDE else system

    @property
    def system(self) -> System:
        """The normal equations, which are factored again where the layer is wide."""
        return self._system_at(self.ridge) if self._system is None else self._system


def select_ridge(
    fitted: RegressionMoments, held_moments: RegressionMoments, rows: RegressionRows | None, has_constant: bool
) -> Choice:
    """Select the ridge, and the number of steps through the nonlinearity, that are best on held-out rows.

    Ridges are tried from the middle on, in the direction in which less is left, as long as it falls. Where no row is
    held out, the largest one is taken.
    """
    if held_moments.rows == 0:
        return Choice(RIDGES[-1], 0)
    system_at = systems_of(fitted, has_constant)
    best = _Trial(system_at, RIDGES[MIDDLE], held_moments)
    for ridges in (RIDGES[MIDDLE + 1 :], RIDGES[:MIDDLE][::-1]):
        for ridge in ridges:
            other = _Trial(system_at, ridge, held_moments)
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
    step_errors: list[float] = []
    for change in islice(_steps(rows.where(~rows.is_held), fitted, system), STEPS + 1):
        step_errors.append(held_rows.squared_error(change))
        if len(step_errors) > PATIENCE and min(step_errors[-PATIENCE:]) > min(step_errors[:-PATIENCE]):
            break
    return min(range(len(step_errors)), key=step_errors.__getitem__)


def _steps(rows: RegressionRows, moments: RegressionMoments, system: System) -> Iterator[Tensor]:
    """Yield the change without bounds, and the change after each step. (groups, features, outputs)"""
    change = ahead = system.solution
    weight, pace = moments.rows / max(len(rows.is_held), 1), 1.0
    yield change
    while True:
        moment = at_least_single(rows.features).transpose(1, 2) @ at_least_single(rows.residuals(ahead))
        now = ahead + system.solve(weight * moment)
        later = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        ahead = now + (pace - 1) / later * (now - change)
        change, pace = now, later
        yield change
