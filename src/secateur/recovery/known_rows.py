"""The dense network's values at the rows of quick refits, computed once for all cut networks."""

import math
from functools import partial

from torch.fx import Node

from secateur.graph.cursor import Values, bytes_of_tensors
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.output_targets import OutputTargets
from secateur.recovery.pruned_layer import draw_positions, few_rows_of, results_at
from secateur.recovery.target_rows import DenseRows


class KnownDenseRows:
    """The dense network's values at the rows that quick refits of any cut network read.

    Quick refits of a layer read the same positions in every cut network, or the first of them, so the dense network
    does not have to run beside each one. Layers for which there is no room are not stored.

    Args:
        memory: the number of bytes that the values may take.
        sizes: the number of examples of each microbatch.
        share: the fraction of the rows of a quick refit that refits read.
    """

    def __init__(self, memory: int, sizes: list[int], share: float = 1.0) -> None:
        self._room, self._sizes, self._share = memory, sizes, share
        self._rows: dict[tuple[Node, int], DenseRows] = {}  # (examples, positions, outputs)

    def has(self, layer: LinearLayer) -> bool:
        """Return whether the values of a layer are known for all microbatches."""
        return all((layer.node, microbatch) in self._rows for microbatch in range(len(self._sizes)))

    def first(self, layer: LinearLayer, microbatch: int, positions: int) -> DenseRows:
        """Return the values of a microbatch at the first positions of each example, (rows, outputs)."""
        rows = self._rows[layer.node, microbatch]
        return DenseRows(*(values[:, :positions].flatten(0, 1) for values in (rows.output, rows.value)))

    def add(self, layer: LinearLayer, microbatch: int, targets: OutputTargets, dense: Values) -> None:
        """Store the values of a layer for a microbatch, at as many positions as any quick refit reads.

        Args:
            layer: the layer.
            microbatch: the number of the microbatch.
            targets: those of its output.
            dense: the dense network's values.
        """
        if (layer.node, microbatch) in self._rows:
            return
        size, most_rows = self._sizes[microbatch], round(few_rows_of(layer.features_of_group) * self._share)
        count = layer.results(dense[layer.node], size).shape[1]
        positions = draw_positions(count, math.ceil(most_rows / sum(self._sizes)), microbatch).to(
            dense[layer.node].device
        )
        rows = targets.dense_rows(partial(results_at, layer, size, positions), dense)
        rows = DenseRows(*(values.unflatten(0, (-1, len(positions))) for values in (rows.output, rows.value)))
        needed_bytes = bytes_of_tensors([rows.output, rows.value])
        if needed_bytes <= self._room:
            self._room -= needed_bytes
            self._rows[layer.node, microbatch] = rows
