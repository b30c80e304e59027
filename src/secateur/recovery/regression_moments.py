"""Sums over the rows of a regression, from which its solution follows for any ridge."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.utils.dtypes import at_least_single
from secateur.utils.symmetric_matrices import add_products, matrix_blocks, products

SILENT = 1e-6
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
        if _are_few(rows.shape[1], rows.shape[2]):
            return RegressionMoments(None, features, features.double().square().sum(1), moment, square, rows.shape[1])
        gram = products(features)
        return RegressionMoments(gram, None, gram.diagonal(dim1=1, dim2=2), moment, square, rows.shape[1])

    def with_rows(self, rows: Tensor, missing: Tensor) -> "RegressionMoments":
        """Return the moments of these rows and more; these are used up, as their matrices are added to in place."""
        features, targets = at_least_single(rows), at_least_single(missing)
        total = self.rows + rows.shape[1]
        self.moment.add_(features.transpose(1, 2) @ targets)
        square = self.square + targets.double().square().sum(1)
        if self.features is not None and _are_few(total, rows.shape[2]):
            squares = self.squares + features.double().square().sum(1)
            return RegressionMoments(None, torch.cat([self.features, features], 1), squares, self.moment, square, total)
        gram = self.summed()
        add_products(gram, features)
        return RegressionMoments(gram, None, gram.diagonal(dim1=1, dim2=2), self.moment, square, total)

    def joined(self, other: "RegressionMoments") -> "RegressionMoments":
        """Return the moments of both; these are used up, as their matrices are added to in place."""
        self.moment.add_(other.moment)
        square, total = self.square + other.square, self.rows + other.rows
        squares = self.squares + other.squares
        if self.features is not None and other.features is not None and _are_few(total, squares.shape[1]):
            both = torch.cat([self.features, other.features], 1)
            return RegressionMoments(None, both, squares, self.moment, square, total)
        gram = self.summed()
        if other.gram is not None:
            gram.add_(other.gram)
        elif other.features is not None:
            add_products(gram, other.features)
        return RegressionMoments(gram, None, gram.diagonal(dim1=1, dim2=2), self.moment, square, total)

    def summed(self) -> Tensor:
        """Return the Gram matrices (groups, features, features)."""
        if self.gram is not None:
            return self.gram
        assert self.features is not None
        return products(self.features)

    def penalty(self, ridge: float, has_constant: bool) -> Tensor:
        """Return the penalty on each weight's change. (groups, features)

        The penalty on a weight is a part of the mean square of its feature: however loudly a unit speaks, the same is
        asked of what its consumer makes of it. The last one, if it is a constant, is all but free of it.
        """
        squares = self.squares
        mean = (squares[:, :-1] if has_constant and squares.shape[1] > 1 else squares).mean().clamp_min(1e-12)
        penalty = ridge * squares.clamp_min(SILENT * mean)
        penalty[:, -1:] = ridge * SILENT * mean if has_constant else penalty[:, -1:]
        return penalty

    def penalised(self, ridge: float, has_constant: bool) -> Tensor:
        """Return new Gram matrices with a ridge on their diagonals."""
        penalty = self.penalty(ridge, has_constant)
        regular = self.summed() if self.gram is None else self.gram.clone(memory_format=torch.contiguous_format)
        regular.diagonal(dim1=1, dim2=2).add_(penalty)
        return regular

    def mean_square(self, change: Tensor) -> float:
        """Return the mean square that is lacking after a change (groups, features, outputs)."""
        explained = sum(self._explained(change, columns) for columns in matrix_blocks(change.shape[2]))
        return float(self.square.sum() - explained) / max(self.rows, 1)

    def _explained(self, change: Tensor, outputs: slice) -> Tensor:
        """Return the sum of squares by which a change reduces what is lacking in some outputs."""
        weights = change[..., outputs]
        if self.features is None:
            quadratic = (weights * (self.summed() @ weights)).sum()
        else:
            quadratic = (self.features.to(change) @ weights).square().sum()
        return 2 * (weights * self.moment[..., outputs]).sum() - quadratic


def _are_few(rows: int, features: int) -> bool:
    return FEWER_ROWS * rows <= features
