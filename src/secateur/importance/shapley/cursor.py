"""What lives in the program at a group's first reader, cell by cell, carried on from group to group.

Groups are scored in the order of their cuts, so each cell runs through the dense network once for all of them. Where
the cells together need more memory than there is, those that find no room are made again from the inputs.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.evaluation.losses import Reference, output_scales
from secateur.importance.context import CriterionContext, as_fast_layout
from secateur.utils.live_bytes import peak_bytes


@dataclass(frozen=True)
class DenseBaseline:
    """What is known of a cell of examples from the dense network.

    Args:
        reference: what its losses are measured against.
        values: minus the dense network's loss of each example, (examples,).
        examples: how many there are.
    """

    reference: Reference
    values: Tensor
    examples: int


class ProgramCursor:
    """The dense network's values at a cut, for every cell of the evidence.

    Args:
        context: the network and the examples.
        memory: how many bytes may be kept.
    """

    def __init__(self, context: CriterionContext, memory: int) -> None:
        self.context, self.memory = context, memory
        self._at: dict[int, tuple[int, dict[Node, Any], int]] = {}
        self._known: dict[int, DenseBaseline] = {}
        self._references = 0

    @property
    def held(self) -> int:
        """How many bytes are kept now."""
        return sum(size for _, _, size in self._at.values()) + self._references

    @cached_property
    def largest(self) -> tuple[int, ...]:
        """The cell with the most entries and the one with the largest examples, which are mostly the same."""
        entries = [sum(tensor.numel() for tensor in cell.tensors) for cell in self.context.cells]
        by_example = [count / (cell.size or 1) for count, cell in zip(entries, self.context.cells, strict=True)]
        return tuple(dict.fromkeys(max(range(len(counts)), key=counts.__getitem__) for counts in (entries, by_example)))

    @cached_property
    def dense_bytes(self) -> int:
        """What the dense pass takes on the largest cell, with its losses."""
        return max(peak_bytes(partial(self._ask, cell)) for cell in self.largest)

    def keep_within(self, memory: int) -> None:
        """Change how many bytes may be kept, and drop the values that are beyond."""
        self.memory = memory
        while self._at and self.held > memory:
            self._at.popitem()
        if self.held > memory:
            self._known.clear()
            self._references = 0

    def bytes_at(self, cell: int, cut: int) -> tuple[int, int]:
        """What the values of a cell at a cut take, and what its losses are measured against."""
        return sum(map(_bytes, self.live(cell, cut).values())), _reference_bytes(self.known(cell).reference)

    def live(self, cell: int, cut: int) -> dict[Node, Any]:
        """The values that operators from the position `cut` on need of a cell, but for parameters and constants."""
        program = self.context.network.program
        position, values, _ = self._at.pop(cell, (None, {}, 0))
        if position is None or position > cut:
            position, values = program.first, dict(program.bind(self.context.cells[cell]))
        if position < cut:
            fixed = program.fixed()
            values.update(fixed)
            with torch.no_grad():
                program.run(values, position, cut, {}, keep=program.output_nodes)
            for node in list(values):  # one after the other, so that only one is there twice
                if node in fixed:
                    del values[node]
                else:
                    values[node] = _laid_out(values[node])
        size = sum(_bytes(value) for value in values.values())
        if self.held + size <= self.memory:
            self._at[cell] = cut, values, size
        return values

    def known(self, cell: int) -> DenseBaseline:
        """What the dense network says of a cell; kept while there is room, as outputs may be large."""
        if cell in self._known:
            return self._known[cell]
        found = self._ask(cell)
        size = _reference_bytes(found.reference)
        if self.held + size <= self.memory:
            self._known[cell], self._references = found, self._references + size
        return found

    def _ask(self, cell: int) -> DenseBaseline:
        batch = self.context.cells[cell]
        with torch.no_grad():
            output = self.context.forward(batch)
            labelled = batch.target is not None
            scales = None if labelled or self.context.loss is not None else output_scales(output)
            reference = Reference(batch.target, None if labelled else output, scales)
            examples = batch.size or 1
            losses = self.context.losses(output, reference, examples)
        return DenseBaseline(reference, -losses.cpu().double(), examples)


def _laid_out(value: Any) -> Any:
    return as_fast_layout(value) if isinstance(value, Tensor) else value


def _reference_bytes(reference: Reference) -> int:
    return _bytes((reference.labels, reference.dense))


def _bytes(value: Any) -> int:
    """The bytes of a value's tensors."""
    return sum(leaf.numel() * leaf.element_size() for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))
