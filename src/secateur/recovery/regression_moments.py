"""Sums over the rows of a regression, from which its solution follows for any ridge."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from secateur.masking.row_products import RowProducts
from secateur.utils.dtypes import at_least_single
from secateur.utils.symmetric_matrices import matrix_blocks

SILENT = 1e-6
MOST_SHARED = 2048  # features up to which factorizations are kept for layers that read the same rows
Factor = TypeVar("Factor")


class FeatureSums:
    """Sums over the rows of a layer's features, accumulated in float64.

    Layers that read the same rows share them, and the factorizations of their normal equations.

    Args:
        is_shared: whether other layers follow that read the same rows; the sums stay as they are for them.

    Attributes:
        products: of the features with each other.
        squares: of each feature (groups, features).
        is_complete: whether all rows were added; more are ignored.
    """

    def __init__(self, is_shared: bool = False) -> None:
        self.is_shared, self.is_complete = is_shared, False
        self.products, self.squares = RowProducts(), torch.zeros(())
        self._factors: dict[float, tuple[Tensor, Any]] = {}  # by ridge
        self._joined: FeatureSums | None = None

    def add(self, features: Tensor) -> None:
        """Add rows (groups, rows, features)."""
        if self.is_complete:
            return
        self.products.add(features)
        self.products.rows()  # in one block, as they are solved for
        self.squares = _squares(self.products, features, self.squares)

    def plus(self, other: "FeatureSums") -> "FeatureSums":
        """Return the sums of both; unless these are shared, they are used up: their matrices are added to in place."""
        if self._joined is not None:
            return self._joined
        total = FeatureSums(self.is_shared) if self.is_shared else self
        squares = self.squares + other.squares
        if self.is_shared:
            total.products.add_all(self.products)
        total.products.add_all(other.products)
        total.squares = squares if total.products.gram is None else _diagonal(total.products.gram)
        total.is_complete, self._joined = True, total if self.is_shared else None
        return total

    def shared_factor(self, ridge: float, penalty: Tensor, compute: Callable[[], Factor]) -> Factor:
        """Return the factored normal equations with a penalty, which layers that read the same rows share.

        One factorization is kept for each ridge: that of the last layer, as the penalty may depend on the layer.

        Args:
            ridge: by which the penalty was computed.
            penalty: on the square of each weight's change (groups, features).
            compute: factors the equations.
        """
        equal = [factor for other, factor in self._factors.values() if torch.equal(penalty, other)]
        if equal:
            return equal[0]  # type: ignore[no-any-return]
        self._factors.pop(ridge, None)  # before another one takes memory
        new = compute()
        if self.is_shared and self.squares.shape[1] <= MOST_SHARED:
            self._factors[ridge] = penalty, new
        return new


@dataclass(frozen=True)
class RegressionMoments:
    """Sums over rows for each group of a layer, accumulated in float64.

    Args:
        inputs: of the features.
        moment: of the features with the targets (groups, features, outputs).
        square: of the targets (groups, outputs).
        floor: the least penalty on each weight's change for each row (groups, features), or None.
    """

    inputs: FeatureSums
    moment: Tensor
    square: Tensor
    floor: Tensor | None = None

    @staticmethod
    def of(rows: Tensor, targets: Tensor, inputs: FeatureSums | None = None) -> "RegressionMoments":
        """Compute the moments of rows and targets.

        Args:
            rows: the features (groups, rows, features).
            targets: the targets (groups, rows, outputs).
            inputs: to which the features are added; by default new sums.
        """
        features, targets = at_least_single(rows), at_least_single(targets)
        moment, square = (features.transpose(1, 2) @ targets).double(), targets.double().square().sum(1)
        inputs = FeatureSums() if inputs is None else inputs
        inputs.add(features)
        return RegressionMoments(inputs, moment, square)

    def with_rows(self, rows: Tensor, targets: Tensor) -> "RegressionMoments":
        """Return the moments of these rows and more; these are used up, as their matrices are added to in place."""
        features, targets = at_least_single(rows), at_least_single(targets)
        self.moment.add_(features.transpose(1, 2) @ targets)
        self.inputs.add(features)
        return replace(self, square=self.square + targets.double().square().sum(1))

    def plus(self, other: "RegressionMoments") -> "RegressionMoments":
        """Return the moments of both; these are used up, as their matrices are added to in place."""
        self.moment.add_(other.moment)
        return replace(self, inputs=self.inputs.plus(other.inputs), square=self.square + other.square)

    @property
    def products(self) -> RowProducts:
        """The products of the features with each other."""
        return self.inputs.products

    @property
    def squares(self) -> Tensor:
        """The sums of squares of each feature (groups, features)."""
        return self.inputs.squares

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

    def penalised_gram(self, ridge: float, has_constant: bool) -> Tensor:
        """Return new Gram matrices with a ridge on their diagonals."""
        penalty = self.penalty(ridge, has_constant)
        gram = self.products.gram
        regular = self.products.summed() if gram is None else gram.clone(memory_format=torch.contiguous_format)
        regular.diagonal(dim1=1, dim2=2).add_(penalty)
        return regular

    def mean_square(self, change: Tensor) -> float:
        """Return the mean squared error that remains after a change (groups, features, outputs)."""
        explained = sum(self._explained_error(change, columns) for columns in matrix_blocks(change.shape[2]))
        return float(self.square.sum() - explained) / max(self.rows, 1)

    def _explained_error(self, change: Tensor, outputs: slice) -> Tensor:
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
