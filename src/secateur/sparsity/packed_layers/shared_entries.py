"""The entries of a matrix of unified blocks: its runs of one absolute value, and the others."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.sparsity.unification.blocks import FREE, UNIFIED, Blocks, existing_labels, signs


@dataclass(frozen=True, eq=False)
class SharedEntries:
    """A matrix by its runs of one absolute value, and its other entries.

    Args:
        rows, runs, patterns, levels: of each run: its row, its number among the row's, its pattern of signs as seen
            from the first, and its absolute value with the first sign (runs,).
        free_rows, free_columns, free_values: of each other entry that is not zero.
    """

    rows: Tensor
    runs: Tensor
    patterns: Tensor
    levels: Tensor
    free_rows: Tensor
    free_columns: Tensor
    free_values: Tensor


def shared_entries(matrix: Tensor, width: int) -> SharedEntries:
    """Return the entries of a matrix (rows, columns) by runs of a width."""
    blocks = Blocks(tuple(matrix.shape), (1, width))
    values, labels = blocks.cut(matrix), existing_labels(blocks, matrix).to(matrix.device)
    numbers = torch.arange(blocks.count, device=matrix.device)
    row, run = numbers // blocks.grid[1], numbers % blocks.grid[1]
    is_unified = labels == UNIFIED
    minus = signs(values[is_unified]) < 0
    is_turned = minus != minus[:, :1]  # as seen from the first sign
    pattern = (is_turned[:, 1:].long() << torch.arange(width - 1, device=matrix.device)).sum(1)
    at, inside = torch.nonzero((values != 0) & (labels == FREE)[:, None], as_tuple=True)
    return SharedEntries(
        row[is_unified],
        run[is_unified],
        pattern,
        values[is_unified, 0],
        row[at],
        run[at] * width + inside,
        values[at, inside],
    )
