"""Sums over the rows of a regression, from which its solution follows for any ridge."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from secateur.masking.row_products import RowProducts
from secateur.utils.dtypes import at_least_single
from secateur.utils.symmetric_matrices import matrix_blocks

SILENT = 1e-6


@dataclass(frozen=True)
class RegressionMoments:
    """Sums over rows for each group of a layer, accumulated in float64.

    Args:
        products: of the features with each other.
        squares: of each feature (groups, features).
        moment: of the features with what is missing of the target (groups, features, outputs).
        square: of what is missing (groups, outputs).
        floor: the least penalty on each weight's change for each row (groups, features), or None.
    """

    products: RowProducts
    squares: Tensor
    moment: Tensor
    square: Tensor
    floor: Tensor | None = None

    @staticmethod
    def of(rows: Tensor, missing: Tensor) -> "RegressionMoments":
        """Compute the moments of rows (groups, rows, features) and targets (groups, rows, outputs)."""
        features, targets = at_least_single(rows), at_least_single(missing)
        moment, square = (features.transpose(1, 2) @ targets).double(), targets.double().square().sum(1)
        products = RowProducts()
        products.add(features)
        return RegressionMoments(products, _squares(products, features), moment, square)

    def with_rows(self, rows: Tensor, missing: Tensor) -> "RegressionMoments":
        """Return the moments of these rows and more; these are used up, as their matrices are added to in place."""
        features, targets = at_least_single(rows), at_least_single(missing)
        self.moment.add_(features.transpose(1, 2) @ targets)
        self.products.add(features)
        self.products.rows()  # in one block, as they are solved for
        squares = _squares(self.products, features, self.squares)
        return replace(self, squares=squares, square=self.square + targets.double().square().sum(1))

    def joined(self, other: "RegressionMoments") -> "RegressionMoments":
        """Return the moments of both; these are used up, as their matrices are added to in place."""
        self.moment.add_(other.moment)
        self.products.add_all(other.products)
        squares = self.squares + other.squares if self.products.gram is None else _diagonal(self.products.gram)
        return replace(self, squares=squares, square=self.square + other.square)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.products.count

    @property
    def features(self) -> Tensor | None:
        """The rows (groups, rows, features); None where they are summed up."""
        return self.products.rows()

    def penalty(self, ridge: float, has_constant: bool) -> Tensor:
        """Return the penalty on each weight's change. (groups, features)

        The penalty on a weight is a fraction of the mean square of its feature, so that it does not depend on the scale
        of the feature. The last feature, if it is a constant, has almost no penalty.
        """
        squares = self.squares
        mean = (squares[:, :-1] if has_constant and squares.shape[1] > 1 else squares).mean().clamp_min(1e-12)
        penalty = ridge * squares.clamp_min(SILENT * mean)
        penalty = penalty if self.floor is None else torch.maximum(penalty, self.rows * self.floor)
        penalty[:, -1:] = ridge * SILENT * mean if has_constant else penalty[:, -1:]
        return penalty

    def penalised(self, ridge: float, has_constant: bool) -> Tensor:
        """Return new Gram matrices with a ridge on their diagonals."""
        penalty = self.penalty(ridge, has_constant)
        gram = self.products.gram
        regular = self.products.summed() if gram is None else gram.clone(memory_format=torch.contiguous_format)
        regular.diagonal(dim1=1, dim2=2).add_(penalty)
        return regular

    def mean_square(self, change: Tensor) -> float:
        """Return the mean squared error that remains after a change (groups, features, outputs)."""
        explained = sum(self._explained(change, columns) for columns in matrix_blocks(change.shape[2]))
        return float(self.square.sum() - explained) / max(self.rows, 1)

    def _explained(self, change: Tensor, outputs: slice) -> Tensor:
        """Return the reduction of the squared error by a change, summed over some outputs."""
        weights = change[..., outputs]
        features = self.features
        if features is None:
            quadratic = (weights * (self.products.summed() @ weights)).sum()
        else:
            quadratic = (features.to(change) @ weights).square().sum()
        return 2 * (weights * self.moment[..., outputs]).sum() - quadratic


def _squares(products: RowProducts, features: Tensor, before: Tensor | float = 0.0) -> Tensor:
    """Return the sums of squares (groups, features), of which these rows were added last."""
    if products.gram is not None:
        return _diagonal(products.gram)
    return before + features.double().square().sum(1)


def _diagonal(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2)
