"""The result of unification."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from secateur.coupling.cost import Cost
from secateur.coupling.operator_results import results_of
from secateur.evaluation.kernel_selection import FastNetwork, select_network_kernels
from secateur.files import Writer, bytes_writer
from secateur.masking.linear_layers import layers_of
from secateur.options.call_checks import checked_calls
from secateur.sparsity.packed_layers.unified_kernels import unified_kernels
from secateur.sparsity.results import SparseResult
from secateur.sparsity.saved_kernels import SavedKernels
from secateur.sparsity.unification.blocks import FREE, PRUNED, UNIFIED, Blocks, existing_labels
from secateur.sparsity.unification.codec import Compressed, compressed_form

BLOCKS_FILE = "model.blocks"


@dataclass(frozen=True)
class BlockCounts:
    """The numbers of blocks of each kind in one weight.

    Args:
        free, unified, pruned: blocks of each kind.
        free_weights: weights in free blocks.
        rows: filters that unified blocks are part of, summed over the blocks: so many multiplications they take at one
            place of the result.
        remaining: weights in blocks that are not pruned.
        weights: all of them.
    """

    free: int
    unified: int
    pruned: int
    free_weights: int
    rows: int
    remaining: int
    weights: int


@checked_calls
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class UnifiedResult(SparseResult):
    """A network of unified, pruned and free blocks.

    Args:
        shapes: of blocks, by the names of weights.
        residuals: ||W - Z|| / ||W|| of each layer when its weights took on the structure.
        left_out: layers that stay as they are, and why.
    """

    shapes: Mapping[str, tuple[int, ...]]
    residuals: Mapping[str, float]
    left_out: Mapping[str, str]

    @cached_property
    def counts(self) -> dict[str, BlockCounts]:
        """The numbers of blocks of each kind, by weight."""
        return {name: count_blocks(self.model.get_parameter(name), shape) for name, shape in self.shapes.items()}

    @cached_property
    def _compressed(self) -> tuple[bytes, Compressed]:
        return compressed_form(self.model, self.shapes)

    @property
    def compressed(self) -> Compressed:
        """The contents of the compressed file, and its size."""
        return self._compressed[1]

    def __str__(self) -> str:
        rows = [f"  {name}: {text}" for name, text in self._structures().items()]
        return "\n".join([str(self.compressed), *rows, *(f"  {line}" for line in self._notes())])

    def _fastest(self) -> FastNetwork:
        return select_network_kernels(self.model, self._example, unified_kernels(self.model, self.shapes))

    def _saved_kernels(self) -> SavedKernels:
        return SavedKernels(SavedKernels.FORMAT, self.fast.kernels, {name: tuple(s) for name, s in self.shapes.items()})

    def _structures(self) -> Mapping[str, str]:
        texts = {}
        for name, count in self.counts.items():
            sides = " x ".join(map(str, self.shapes[name]))
            texts[name] = f"{count.free} free, {count.unified} unified, {count.pruned} pruned blocks of {sides}"
        return texts

    def _companions(self) -> Mapping[str, Writer]:
        return {**super()._companions(), BLOCKS_FILE: bytes_writer(self._compressed[0])}

    def _cost(self) -> Cost:
        """Return the stored parameters, the MACs of blocks that are not pruned, and the bytes of the file."""
        cost = super()._cost()
        saved_weights = sum(count.remaining - count.free_weights - count.unified for count in self.counts.values())
        return replace(cost, params=cost.params - saved_weights, bytes=self.compressed.bytes)

    def _ratios(self) -> Mapping[str, float]:
        """Return the factors by which the whole network has fewer numbers, multiplications and additions."""
        network = self.plan.network
        macs = results_of(network.program, network.example).macs
        total = float(sum(macs.values()))
        multiplications = additions = total
        for layer in layers_of(network):
            count = self.counts.get(layer.weight)
            if count is not None:
                multiplications -= macs[layer.node] * (1 - (count.free_weights + count.rows) / count.weights)
                additions -= macs[layer.node] * (1 - count.remaining / count.weights)
        params = network.cost().params / max(self._cost().params, 1)
        ratios = {"multiplications": total / max(multiplications, 1), "additions": total / max(additions, 1)}
        return {"parameters": params, **ratios}

    def _notes(self) -> tuple[str, ...]:
        residual_texts = [f"{name} {residual:.1%}" for name, residual in self.residuals.items()]
        away = (
            [f"weights that were away from their blocks when these were made exact: {', '.join(residual_texts)}"]
            if residual_texts
            else []
        )
        return (*away, *(f"{name} is as it was: {reason}" for name, reason in self.left_out.items()))


def count_blocks(weight: Tensor, shape: tuple[int, ...]) -> BlockCounts:
    """Return the numbers of blocks of each kind in a weight, from its values."""
    blocks = Blocks(tuple(weight.shape), shape)
    labels = existing_labels(blocks, weight)
    real = blocks.cut(torch.ones(weight.shape)) > 0  # (blocks, entries)
    sizes = real.sum(1)
    rows = real.view(blocks.count, shape[0], math.prod(shape[1:])).any(2).sum(1)
    free, unified = (int(sizes[labels == kind].sum()) for kind in (FREE, UNIFIED))
    return BlockCounts(
        free=int((labels == FREE).sum()),
        unified=int((labels == UNIFIED).sum()),
        pruned=int((labels == PRUNED).sum()),
        free_weights=free,
        rows=int(rows[labels == UNIFIED].sum()),
        remaining=free + unified,
        weights=weight.numel(),
    )
