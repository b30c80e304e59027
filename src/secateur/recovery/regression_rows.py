"""The rows of a regression: features, residuals, and the bounds of a clipped output."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RegressionRows:
    """A layer's input, and what its output lacks.

    Args:
        features: (groups, rows, features).
        missing: what is to be added to its output (groups, rows, outputs).
        least, most: between these any addition will do.
        is_held: which rows are of examples held out (rows,).
        factors: by which rows are multiplied before their squares are summed (rows,); None for one.
    """

    features: Tensor
    missing: Tensor
    least: Tensor
    most: Tensor
    is_held: Tensor
    factors: Tensor | None = None

    def weighted(self) -> "RegressionRows":
        """Multiply the rows by their factors."""
        if self.factors is None:
            return self
        features, missing, least, most = (tensor * self.factors[:, None] for tensor in self._tensors)
        return RegressionRows(features, missing, least, most, self.is_held)

    def shift(self, by: Tensor) -> None:
        """Subtract a shift (groups, 1, features - 1), in place, from all features but the last, which is constant."""
        self.features[..., :-1].sub_(by)

    def where(self, chosen: Tensor) -> "RegressionRows":
        """Select rows."""
        features, missing, least, most = (tensor[:, chosen] for tensor in self._tensors)
        return RegressionRows(features, missing, least, most, self.is_held[chosen])

    @staticmethod
    def joined(items: Sequence["RegressionRows"]) -> "RegressionRows":
        """Concatenate rows."""
        values = zip(*(item._tensors for item in items), strict=True)
        features, missing, least, most = (torch.cat(tensors, 1) for tensors in values)
        return RegressionRows(features, missing, least, most, torch.cat([item.is_held for item in items]))

    def residuals(self, change: Tensor) -> Tensor:
        """Return the residuals after a change (groups, features, outputs). (groups, rows, outputs)"""
        outputs = self.features @ change.to(self.features)
        return outputs.clamp(self.least, self.most) - outputs

    def squared_error(self, change: Tensor) -> float:
        """Return the sum of the squared residuals after a change."""
        return float(self.residuals(change).double().square().sum())

    @property
    def bytes(self) -> int:
        """The bytes of the tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors)

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        return self.features, self.missing, self.least, self.most


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

    def joined(self) -> RegressionRows | None:
        """Return all rows."""
        return RegressionRows.joined(self.rows) if self.rows else None
