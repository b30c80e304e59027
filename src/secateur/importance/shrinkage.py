"""Covariances shrunk towards a multiple of the identity, the more the fewer rows they come from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.importance.inverse_covariances import Inverse, RowsInverse, invert_covariance

LEAST = 1e-5


@dataclass(frozen=True, eq=False)
class ShrunkCovariance:
    """Covariances of groups of features, as matrices or by the few rows behind them.

    Args:
        matrices: (groups, features, features); None where they are rows'rows + level.
        rows: (groups, rows, features), or None.
        level: the value added to the diagonal of each group (groups,).
    """

    matrices: Tensor | None
    rows: Tensor | None
    level: Tensor

    @staticmethod
    def of(moments: Tensor, count: int) -> "ShrunkCovariance":
        """Shrink covariances (groups, features, features) of so many rows, in place."""
        traces, squares = (
            moments.diagonal(dim1=1, dim2=2).sum(1),
            torch.linalg.vector_norm(moments, dim=(1, 2)).square(),
        )
        share, level = _shrinkage(traces, squares, moments.shape[1], count)
        moments.mul_((1 - share)[:, None, None]).diagonal(dim1=1, dim2=2).add_(level[:, None])
        return ShrunkCovariance(moments, None, level)

    @staticmethod
    def of_rows(rows: Tensor) -> "ShrunkCovariance":
        """Shrink the covariances that are the sums of products of rows (groups, rows, features)."""
        products = rows @ rows.transpose(1, 2)
        traces, squares = products.diagonal(dim1=1, dim2=2).sum(1), products.square().sum((1, 2))
        share, level = _shrinkage(traces, squares, rows.shape[2], rows.shape[1])
        return ShrunkCovariance(None, (1 - share).sqrt()[:, None, None] * rows, level)

    @property
    def is_finite(self) -> bool:
        """True where there is no NaN and no infinity."""
        return all(
            bool(torch.isfinite(tensor).all())
            for tensor in (self.matrices, self.rows, self.level)
            if tensor is not None
        )

    def inverse(self, group: int) -> Inverse:
        """Return the inverse of one group's covariance."""
        if self.rows is not None:
            return RowsInverse(self.rows[group], float(self.level[group]))
        assert self.matrices is not None
        return invert_covariance(self.matrices[group])

    def dense(self) -> Tensor:
        """Return the covariances as matrices, (groups, features, features)."""
        if self.matrices is not None:
            return self.matrices
        assert self.rows is not None
        return self.rows.transpose(1, 2) @ self.rows + torch.diag_embed(
            self.level[:, None].expand(-1, self.rows.shape[2])
        )


def _shrinkage(traces: Tensor, squares: Tensor, size: int, rows: int) -> tuple[Tensor, Tensor]:
    """Return the fraction by which each covariance is shrunk, and the multiple of the identity added, (groups,) each.

    Oracle approximating shrinkage (Chen et al. 2010, equation 23).

    Args:
        traces: the trace of each covariance (groups,).
        squares: the sum of squares of each covariance's entries (groups,).
        size: the number of features.
        rows: the number of rows that the covariances come from.
    """
    above = (1 - 2 / size) * squares + traces.square()
    below = (rows + 1 - 2 / size) * (squares - traces.square() / size)
    share = torch.where(below > 0, above / below.clamp_min(1e-300), 1.0).clamp(LEAST, 1)
    return share, share * (traces / size).clamp_min(1e-12)
