"""The rows of a regression: features, residuals, and the bounds of a clipped output."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.recovery.regression_moments import FeatureSums, RegressionMoments


@dataclass(frozen=True)
class RegressionRows:
    """A layer's input, and what its output lacks.

    Args:
        features: (groups, rows, features).
        targets: the residuals that are fitted: what its output lacks (groups, rows, outputs).
        lower, upper: the bounds between which any value is as good as the target.
        is_held: which rows are of examples held out (rows,).
        factors: by which rows are multiplied before their squares are summed (rows,); None for one.
    """

    features: Tensor
    targets: Tensor
    lower: Tensor
    upper: Tensor
    is_held: Tensor
    factors: Tensor | None = None

    def with_weights(self) -> "RegressionRows":
        """Multiply the rows by their factors."""
        if self.factors is None:
            return self
        features, targets, lower, upper = (tensor * self.factors[:, None] for tensor in self._tensors)
        return RegressionRows(features, targets, lower, upper, self.is_held)

    def shift_by_means(self, means: Tensor | None) -> Tensor:
        """Subtract means (groups, 1, features - 1), in place, from all features but the last, which is constant.

        A penalty is then on what varies.

        Args:
            means: those of the first microbatch; None: these are the rows of the first microbatch.

        Returns:
            The means.
        """
        means = self.features[..., :-1].mean(1, keepdim=True) if means is None else means
        self.features[..., :-1].sub_(means)
        return means

    def where(self, is_chosen: Tensor) -> "RegressionRows":
        """Select rows by a mask (rows,)."""
        features, targets, lower, upper = (tensor[:, is_chosen] for tensor in self._tensors)
        return RegressionRows(features, targets, lower, upper, self.is_held[is_chosen])

    @staticmethod
    def concatenate(items: Sequence["RegressionRows"]) -> "RegressionRows":
        """Concatenate rows."""
        values = zip(*(item._tensors for item in items), strict=True)
        features, targets, lower, upper = (torch.cat(tensors, 1) for tensors in values)
        return RegressionRows(features, targets, lower, upper, torch.cat([item.is_held for item in items]))

    def residuals(self, change: Tensor) -> Tensor:
        """Return the residuals after a change (groups, features, outputs). (groups, rows, outputs)"""
        outputs = self.features @ change.to(self.features)
        return outputs.clamp(self.lower, self.upper) - outputs

    def squared_error(self, change: Tensor) -> float:
        """Return the sum of the squared residuals after a change."""
        return float(self.residuals(change).double().square().sum())

    @property
    def bytes(self) -> int:
        """The bytes of the tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors)

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        return self.features, self.targets, self.lower, self.upper


class ClippedRegression:
    """Rows for a regression through a nonlinearity that clips: errors beyond its bounds do not count.

    Each step solves a least squares problem that majorises the error, with the same Gram matrix for all steps. Its
    target is the nearest output without an error. Steps are accelerated as in Nesterov 1983.

    Args:
        memory: bytes that rows may take; further rows are left out.
    """

    def __init__(self, memory: int) -> None:
        self.memory, self.rows = memory, list[RegressionRows]()

    def add(self, rows: RegressionRows) -> None:
        """Add rows."""
        self.memory -= rows.bytes
        if self.memory >= 0:
            self.rows.append(rows)

    def all_rows(self) -> RegressionRows | None:
        """Return all rows."""
        return RegressionRows.concatenate(self.rows) if self.rows else None


class SplitMoments:
    """The moments of the rows that a layer is fitted to, and of those held out, added up microbatch by microbatch.

    Args:
        inputs: the sums over the features, of the rows that are fitted and of those held out.
        has_held_rows: whether rows are held out; all are fitted otherwise.
    """

    def __init__(self, inputs: Sequence[FeatureSums], has_held_rows: bool) -> None:
        self._inputs, self._has_held_rows = inputs, has_held_rows
        self._moments: list[RegressionMoments | None] = [None, None]

    def add(self, rows: RegressionRows) -> None:
        """Add the rows of a microbatch."""
        subsets = (rows.where(~rows.is_held), rows.where(rows.is_held)) if self._has_held_rows else (rows,)
        for at, subset in enumerate(subsets):
            moments, new = self._moments[at], (subset.features, subset.targets)
            self._moments[at] = (
                RegressionMoments.of(*new, self._inputs[at]) if moments is None else moments.with_rows(*new)
            )

    def finish(self) -> tuple[RegressionMoments, RegressionMoments | None]:
        """Return the moments of the fitted rows and of those held out, None if there are none."""
        for sums in self._inputs:
            sums.is_complete = True
        fitted, held_moments = self._moments
        assert fitted is not None
        return fitted, held_moments
