"""Outputs of the dense network, with which smaller networks are compared again and again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.evaluation.divergence import output_scales
from secateur.evaluation.outputs import with_named_scores
from secateur.evaluation.targets import has_real_targets
from secateur.graph.contexts import isolated_evaluation, run_seeded

MOST_ENTRIES = 10_000_000  # of all outputs that are kept


class DenseOutputs:
    """The dense network's outputs, each kept from its first computation on, as far as there is room.

    Args:
        model: the dense network.
        writes: whether its code may write to its parameters, which are copied for the time being then.
    """

    def __init__(self, model: nn.Module, writes: bool = True) -> None:
        self._model, self._writes, self._room = model, writes, MOST_ENTRIES
        self._known: dict[int, tuple[Batch, Any]] = {}  # by the batch's identity, which is kept for that
        self._scales: dict[tuple[int, ...], tuple[Sequence[Batch], list[Tensor]]] = {}  # by those of several batches

    @contextmanager
    def ready_for(self, batches: Sequence[Batch]) -> Iterator[None]:
        """Put the model into evaluation mode, without gradients, unless the outputs for all batches are known."""
        if all(id(batch) in self._known for batch in batches):
            yield
        else:
            with isolated_evaluation(self._model, self._writes):
                yield

    def of(self, batch: Batch) -> Any:
        """Return the output for a batch, which is to be called within `ready_for`."""
        if id(batch) in self._known:
            return self._known[id(batch)][1]
        output = run_seeded(self._model, batch)
        entries = entry_count(output)
        if entries <= self._room:
            output = compact_output(output)
            self._room -= entries
            self._known[id(batch)] = batch, output
        return output

    def scales_of(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Return the mean squares of the outputs over batches, as `output_scales` does; they are kept."""
        key = tuple(map(id, batches))
        if key not in self._scales:
            with self.ready_for(batches):
                is_regression = bool(batches) and has_real_targets(batches[0], self.of(batches[0]))
                outputs = (with_named_scores(self.of(batch), batch.has_token_scores) for batch in batches)
                self._scales[key] = list(batches), output_scales(outputs, is_regression)
        return self._scales[key][1]


def entry_count(output: Any) -> int:
    """Return the number of entries of all tensors of an output."""
    return sum(leaf.numel() for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))


def compact_output(output: Any) -> Any:
    """Return an output to be kept: views of larger tensors, which would be kept with them, become copies."""
    leaves, structure = pytree.tree_flatten(output)
    if not any(map(_is_view_of_more, leaves)):
        return output
    copies = [leaf.clone(memory_format=torch.contiguous_format) if _is_view_of_more(leaf) else leaf for leaf in leaves]
    return pytree.tree_unflatten(copies, structure)


def _is_view_of_more(leaf: Any) -> bool:
    if not isinstance(leaf, Tensor) or leaf.layout != torch.strided or leaf.is_nested:
        return False
    return leaf.untyped_storage().nbytes() > leaf.numel() * leaf.element_size()
