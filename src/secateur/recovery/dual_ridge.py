"""Ridge regression in the dual form, for fewer rows than features.

The matrix X'X + P of rows X and a diagonal penalty P is inverted by the identity of Woodbury 1950, so that a layer with
thousands of features costs a few hundred rows squared times features, in place of features cubed.
"""

from collections.abc import Callable

import torch
from torch import Tensor


class DualRegression:
    """The rows of a layer, with their matrix of products computed once for all ridges.

    Args:
        rows: the features (groups, rows, features).
        penalty_at: the penalty on the square of each weight (groups, features) with a ridge.
        has_constant: whether the last feature is 1 in every row; rows are taken about their means then, since a
            constant that is all but free would spoil the condition of the dual system.
    """

    def __init__(self, rows: Tensor, penalty_at: Callable[[float], Tensor], has_constant: bool) -> None:
        wide = rows.double()
        self.mean = wide[..., :-1].mean(1, keepdim=True) if has_constant else None  # (groups, 1, features - 1)
        self.rows = wide if self.mean is None else wide[..., :-1] - self.mean
        self._penalty_at, self._unit_penalty = penalty_at, penalty_at(1.0)
        self._unit_products = self._products(self._unit_penalty)

    def _products(self, penalty: Tensor) -> Tensor:
        """Return the products of rows with each other through the inverse penalty. (groups, rows, rows)"""
        weights = (penalty if self.mean is None else penalty[:, :-1])[:, None]  # (groups, 1, features - 1)
        return (self.rows / weights) @ self.rows.transpose(1, 2)

    def penalty_and_products(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Return the penalty with a ridge (groups, features), and the products through its inverse."""
        penalty = self._penalty_at(ridge)
        is_multiple = torch.equal(penalty, ridge * self._unit_penalty)
        return penalty, self._unit_products / ridge if is_multiple else self._products(penalty)

    def at(self, ridge: float) -> "DualFactor":
        """Return the normal equations with a ridge."""
        return DualFactor(self, ridge)


class DualFactor:
    """The normal equations with a ridge, factored once for several right sides.

    Args:
        regression: the rows.
        ridge: the penalty's factor.
    """

    def __init__(self, regression: DualRegression, ridge: float) -> None:
        self._rows, self._mean = regression.rows, regression.mean
        penalty, products = regression.penalty_and_products(ridge)
        self._penalty = (penalty if self._mean is None else penalty[:, :-1])[:, None]  # (groups, 1, features - 1)
        self._count = float(self._rows.shape[1])
        if self._mean is not None:
            # with the constant eliminated, its small penalty leaves a part of the mean: one row more
            small = penalty[:, -1, None, None]  # (groups, 1, 1)
            self._total = self._count + small
            more = (self._count * small / self._total).sqrt() * self._mean  # (groups, 1, features - 1)
            side = (more / self._penalty) @ self._rows.transpose(1, 2)
            corner = (more / self._penalty) @ more.transpose(1, 2)
            upper = torch.cat([products, side.transpose(1, 2)], 2)
            products = torch.cat([upper, torch.cat([side, corner], 2)], 1)
            self._rows = torch.cat([self._rows, more], 1)
        self._factor = torch.linalg.cholesky(products + torch.eye(products.shape[1]).to(products))

    def solve(self, right: Tensor) -> Tensor:
        """Solve for right sides (groups, features, outputs), in their precision."""
        wide = right.double()
        if self._mean is None:
            return self._solve(wide).to(right)
        weights, constant = wide[:, :-1], wide[:, -1:]
        share = self._count * self._mean / self._total
        change = self._solve(weights - share.transpose(1, 2) @ constant)
        return torch.cat([change, constant / self._total - share @ change], 1).to(right)

    def _solve(self, right: Tensor) -> Tensor:
        scaled_right = right / self._penalty.transpose(1, 2)
        row_part = self._rows.transpose(1, 2) @ torch.cholesky_solve(self._rows @ scaled_right, self._factor)
        return scaled_right - row_part / self._penalty.transpose(1, 2)
