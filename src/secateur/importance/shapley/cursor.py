"""The program's values at a group's first consumer, for each micro-batch, carried on from group to group.

Groups are scored in the order of their cuts, so each micro-batch runs through the dense network once for all of them.
Where the values of all micro-batches exceed the memory, those beyond it are computed again from the inputs.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.evaluation.divergence import output_scales
from secateur.evaluation.losses import Reference
from secateur.importance.context import CriterionContext, as_fast_layout
from secateur.utils.live_bytes import peak_bytes


@dataclass(frozen=True)
class DenseBaseline:
    """The dense network's losses on a micro-batch.

    Args:
        reference: the reference that losses are measured against.
        values: minus the dense network's loss of each example, (examples,).
        examples: the number of examples.
    """

    reference: Reference
    values: Tensor
    examples: int


class ProgramCursor:
    """The dense network's values at a cut, for every micro-batch.

    Args:
        context: the network and the examples.
        memory: the number of bytes that may be kept.
    """

    def __init__(self, context: CriterionContext, memory: int) -> None:
        self.context, self.memory = context, memory
        self._live: dict[int, tuple[int, dict[Node, Any], int]] = {}
        self._baselines: dict[int, DenseBaseline] = {}
        self._reference_bytes = 0

    @property
    def kept_bytes(self) -> int:
        """The number of bytes that are kept now."""
        return sum(size for _, _, size in self._live.values()) + self._reference_bytes

    @cached_property
    def largest(self) -> tuple[int, ...]:
        """The micro-batches with the most entries and with the largest examples, which are mostly the same."""
        batches = self.context.microbatches
        entries = [sum(tensor.numel() for tensor in batch.tensors) for batch in batches]
        by_example = [count / (batch.size or 1) for count, batch in zip(entries, batches, strict=True)]
        return tuple(dict.fromkeys(max(range(len(counts)), key=counts.__getitem__) for counts in (entries, by_example)))

    @cached_property
    def dense_bytes(self) -> int:
        """The bytes of the dense pass on the largest micro-batch, with its losses."""
        return max(peak_bytes(partial(self._dense_baseline, cell)) for cell in self.largest)

    def keep_within(self, memory: int) -> None:
        """Change the number of bytes that may be kept, and drop the values that are beyond."""
        self.memory = memory
        while self._live and self.kept_bytes > memory:
            self._live.popitem()
        if self.kept_bytes > memory:
            self._baselines.clear()
            self._reference_bytes = 0

    def bytes_at(self, cell: int, cut: int) -> tuple[int, int]:
        """Return the bytes of a micro-batch's values at a cut, and of the reference of its losses."""
        values_bytes = sum(map(_bytes, self.live_values(cell, cut).values()))
        return values_bytes, _bytes_of_reference(self.dense_baseline(cell).reference)

    def live_values(self, cell: int, cut: int) -> dict[Node, Any]:
        """Return the values of a micro-batch that operators from position `cut` on need, without constants."""
        program = self.context.network.program
        position, values, _ = self._live.pop(cell, (None, {}, 0))
        if position is None or position > cut:
            position, values = program.first, dict(program.bind(self.context.microbatches[cell]))
        if position < cut:
            constants = program.fixed()
            values.update(constants)
            with torch.no_grad():
                program.run(values, position, cut, {}, keep=program.output_nodes)
            for node in list(values):  # one after the other, so that only one is there twice
                if node in constants:
                    del values[node]
                else:
                    values[node] = _in_fast_layout(values[node])
        size = sum(_bytes(value) for value in values.values())
        if self.kept_bytes + size <= self.memory:
            self._live[cell] = cut, values, size
        return values

    def dense_baseline(self, cell: int) -> DenseBaseline:
        """Return the dense network's losses on a micro-batch; kept while there is room, as outputs may be large."""
        if cell in self._baselines:
            return self._baselines[cell]
        baseline = self._dense_baseline(cell)
        size = _bytes_of_reference(baseline.reference)
        if self.kept_bytes + size <= self.memory:
            self._baselines[cell], self._reference_bytes = baseline, self._reference_bytes + size
        return baseline

    def _dense_baseline(self, cell: int) -> DenseBaseline:
        batch = self.context.microbatches[cell]
        with torch.no_grad():
            output = self.context.forward(batch)
            is_labelled = batch.target is not None
            scales = None if is_labelled or self.context.loss is not None else output_scales(output)
            reference = Reference(batch.target, None if is_labelled else output, scales)
            examples = batch.size or 1
            losses = self.context.losses(output, reference, examples)
        return DenseBaseline(reference, -losses.cpu().double(), examples)


def _in_fast_layout(value: Any) -> Any:
    return as_fast_layout(value) if isinstance(value, Tensor) else value


def _bytes_of_reference(reference: Reference) -> int:
    return _bytes((reference.labels, reference.dense))


def _bytes(value: Any) -> int:
    """Return the bytes of a value's tensors."""
    return sum(leaf.numel() * leaf.element_size() for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))
