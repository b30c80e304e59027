"""Products of rows with each other, summed over blocks; few rows are kept in place of their products."""

import torch
from torch import Tensor

from secateur.utils.dtypes import at_least_single
from secateur.utils.symmetric_matrices import add_products, products

FEATURES_PER_ROW = 2  # from which on the rows are kept: they are smaller than their products


class RowProducts:
    """The Gram matrices X'X of rows X, for each group of a layer, summed over blocks of rows in place.

    The rows themselves are kept as long as they have at least twice as many features as there are rows.

    Attributes:
        gram: the sums of products (groups, features, features) in the widest type; None where the rows are kept.
        count: the number of rows.
    """

    def __init__(self) -> None:
        self.gram: Tensor | None = None
        self.count = 0
        self._blocks: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Add a block of rows (groups, rows, features)."""
        rows = at_least_single(rows)
        self.count += rows.shape[1]
        self._blocks.append(rows)
        if self.gram is not None or FEATURES_PER_ROW * self.count > rows.shape[2]:
            self.gram, self._blocks = self.summed(), []

    def add_all(self, other: "RowProducts") -> None:
        """Add the rows of other sums."""
        for block in other._blocks:
            self.add(block)
        if other.gram is not None:
            self.gram = self.summed().add_(other.gram) if self.count else other.gram.clone()
            self._blocks, self.count = [], self.count + other.count

    def rows(self) -> Tensor | None:
        """Return all rows (groups, rows, features), joined in one block; None where they are summed up."""
        if self.gram is not None:
            return None
        self._blocks = [torch.cat(self._blocks, 1)] if len(self._blocks) > 1 else self._blocks
        return self._blocks[0]

    def summed(self) -> Tensor:
        """Return the Gram matrices (groups, features, features); those that are kept already are not copied."""
        blocks = list(self._blocks)
        gram = products(blocks.pop(0)) if self.gram is None else self.gram
        for block in blocks:
            add_products(gram, block)
        return gram
