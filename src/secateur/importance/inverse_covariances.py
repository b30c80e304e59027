"""Inverses of covariances from which features are removed, some at a time: as a matrix, or by the rows behind it."""

import torch
from torch import Tensor

from secateur.utils.symmetric_matrices import factor_in_place, invert_factor_in_place, matrix_blocks


class MatrixInverse:
    """An inverse covariance as a matrix.

    Updating all of it for every removed feature is bound by memory, so updates are kept as a product of two thin
    matrices, of which only the requested rows are computed, and applied together.

    Args:
        matrix: the inverse (features, features).
    """

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix
        self._columns, self._pivots = self._no_changes()

    def __len__(self) -> int:
        return len(self._matrix)

    @property
    def pending(self) -> int:
        """The number of removed features that are still stored."""
        return len(self._pivots)

    def lines(self, at: Tensor) -> Tensor:
        """Return some rows of the inverse, (rows, features)."""
        return self._matrix[at] - self._columns[at] @ self._pivots

    def remove(self, at: Tensor, lines: Tensor, pivot: Tensor) -> None:
        """Remove features.

        Args:
            at: the features.
            lines: their rows of the inverse.
            pivot: the inverse of their block of it times `lines`.
        """
        self._columns, self._pivots = torch.cat([self._columns, lines.t()], 1), torch.cat([self._pivots, pivot])

    def compact(self, at: Tensor) -> None:
        """Drop the removed features, and keep these in this order."""
        matrix, pivots = self._matrix.new_empty(len(at), len(at)), self._pivots[:, at]
        for rows in matrix_blocks(len(at)):
            torch.sub(self._matrix[at[rows]][:, at], self._columns[at[rows]] @ pivots, out=matrix[rows])
        self._matrix = matrix
        self._columns, self._pivots = self._no_changes()

    def blocks(self, width: int, count: int) -> Tensor:
        """Return the blocks of the first features on the diagonal, before any removal, (count, width, width)."""
        first = self._matrix[: count * width, : count * width]
        by_block = first.unflatten(0, (count, width)).unflatten(2, (count, width))
        blocks: Tensor = by_block.diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()
        return blocks

    def _no_changes(self) -> tuple[Tensor, Tensor]:
        return self._matrix.new_zeros(len(self._matrix), 0), self._matrix.new_zeros(0, len(self._matrix))


class RowsInverse:
    """The inverse of R'R + level by few rows R: (1 - R'(RR' + level)^-1 R) / level, by the identity of Woodbury 1950.

    Args:
        rows: (rows, features).
        level: the value added to the diagonal.
    """

    def __init__(self, rows: Tensor, level: float) -> None:
        self._rows, self._level, self._removed = rows, level, 0
        inner = rows @ rows.t() + level * torch.eye(len(rows)).to(rows)
        self._solved = torch.cholesky_solve(rows, torch.linalg.cholesky(inner))  # (rows, features)

    def __len__(self) -> int:
        return self._rows.shape[1]

    @property
    def pending(self) -> int:
        """The number of removed features that are still stored."""
        return self._removed

    def lines(self, at: Tensor) -> Tensor:
        """Return some rows of the inverse, (rows, features)."""
        lines = (self._rows[:, at].t() @ self._solved).neg_()
        lines[torch.arange(len(at), device=at.device), at] += 1
        return lines / self._level

    def remove(self, at: Tensor, lines: Tensor, pivot: Tensor) -> None:
        """Remove features.

        Args:
            at: the features.
            lines: their rows of the inverse.
            pivot: the inverse of their block of it times `lines`.
        """
        self._solved -= self._solved[:, at] @ pivot
        self._removed += len(at)

    def compact(self, at: Tensor) -> None:
        """Drop the removed features, and keep these in this order."""
        self._rows, self._solved, self._removed = self._rows[:, at], self._solved[:, at], 0

    def blocks(self, width: int, count: int) -> Tensor:
        """Return the blocks of the first features on the diagonal, before any removal, (count, width, width)."""
        matrices = (self._rows, self._solved)
        rows, solved_rows = (matrix[:, : count * width].unflatten(1, (count, width)) for matrix in matrices)
        inner = rows.permute(1, 2, 0) @ solved_rows.permute(1, 0, 2)
        blocks: Tensor = (torch.eye(width).to(inner) - inner) / self._level
        return blocks


Inverse = MatrixInverse | RowsInverse


def invert_covariance(covariance: Tensor) -> MatrixInverse:
    """Return the inverse of a covariance, with as little added to its diagonal as rounding requires."""
    level, added_ridge = covariance.diagonal().mean().clamp_min(1e-12), 0.0
    while True:
        regular = covariance.clone(memory_format=torch.contiguous_format)
        regular.diagonal().add_(added_ridge * level)
        factor, failed = factor_in_place(regular)
        if not bool(failed):
            return MatrixInverse(invert_factor_in_place(factor))
        added_ridge = max(10 * added_ridge, 1e-8)
