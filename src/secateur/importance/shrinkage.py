"""Covariances that are drawn towards a multiple of the identity, the more the fewer rows they come from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.importance.inverse_covariances import Inverse, RowsInverse, inverted

LEAST = 1e-5


@dataclass(frozen=True, eq=False)
class ShrunkCovariance:
    """Covariances of groups of features, as matrices or by the few rows behind them.

    Args:
        matrices: (groups, features, features); None where they are rows'rows + level.
        rows: (groups, rows, features), or None.
        level: of each group what is added to the diagonal (groups,).
    """

    matrices: Tensor | None
    rows: Tensor | None
    level: Tensor

    @staticmethod
    def of(moments: Tensor, count: int) -> "ShrunkCovariance":
        """From covariances (groups, features, features) of so many rows."""
        traces, squares = moments.diagonal(dim1=1, dim2=2).sum(1), moments.square().sum((1, 2))
        share, level = _shrinkage(traces, squares, moments.shape[1], count)
        identity = torch.eye(moments.shape[1]).to(moments)
        return ShrunkCovariance((1 - share)[:, None, None] * moments + level[:, None, None] * identity, None, level)

    @staticmethod
    def of_rows(rows: Tensor) -> "ShrunkCovariance":
        """From rows (groups, rows, features) whose products add up to the covariances."""
        products = rows @ rows.transpose(1, 2)
        traces, squares = products.diagonal(dim1=1, dim2=2).sum(1), products.square().sum((1, 2))
        share, level = _shrinkage(traces, squares, rows.shape[2], rows.shape[1])
        return ShrunkCovariance(None, (1 - share).sqrt()[:, None, None] * rows, level)

    @property
    def is_finite(self) -> bool:
        """Whether there is no NaN and no infinity."""
        return all(
            bool(torch.isfinite(each).all()) for each in (self.matrices, self.rows, self.level) if each is not None
        )

    def inverse(self, group: int) -> Inverse:
        """The inverse of one group's."""
        if self.rows is not None:
            return RowsInverse(self.rows[group], float(self.level[group]))
        assert self.matrices is not None
        return inverted(self.matrices[group])

    def whole(self) -> Tensor:
        """The matrices. (groups, features, features)"""
        if self.matrices is not None:
            return self.matrices
        assert self.rows is not None
        return self.rows.transpose(1, 2) @ self.rows + torch.diag_embed(
            self.level[:, None].expand(-1, self.rows.shape[2])
        )


def _shrinkage(traces: Tensor, squares: Tensor, size: int, rows: int) -> tuple[Tensor, Tensor]:
    """How much of the covariances goes, and the multiple of the identity that comes in its place. (groups,)

    Oracle approximating shrinkage (Chen et al. 2010, equation 23).

    Args:
        traces, squares: of each covariance the trace, and the sum of squares of its entries (groups,).
        size: the number of features.
        rows: how many rows the covariances come from.
    """
    above = (1 - 2 / size) * squares + traces.square()
    below = (rows + 1 - 2 / size) * (squares - traces.square() / size)
    share = torch.where(below > 0, above / below.clamp_min(1e-300), 1.0).clamp(LEAST, 1)
    return share, share * (traces / size).clamp_min(1e-12)
