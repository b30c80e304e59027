"""Examples of a cell picked, in any order and number, from the values that live at a cut."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import selected_entries
from secateur.data.forms import ExampleList
from secateur.evaluation.losses import Reference
from secateur.graph.program import Program


def picked(program: Program, recorded: Any, value: Any, positions: Tensor, examples: int) -> Any:
    """A node's value for these examples of a cell, one after the other along the batch.

    Args:
        recorded: what the export recorded of the node.
        value: its value for the cell.
        positions: which examples, (rows,), on the value's device.
        examples: how many the cell has.
    """
    if isinstance(value, list | tuple):
        parts = zip(recorded, value, strict=True)
        return type(value)(picked(program, part, each, positions, examples) for part, each in parts)
    if isinstance(value, Tensor):
        axis = program.batch_axis(recorded)
        return value if axis is None else _along(value, axis, positions, examples)
    return value // examples * len(positions) if program.scales(recorded) else value


def _along(value: Tensor, axis: int, positions: Tensor, examples: int) -> Tensor:
    if value.shape[axis] != examples:  # what else lies along the batch goes with its example
        apart: Tensor = value.unflatten(axis, (examples, -1))
        return apart.index_select(axis, positions).flatten(axis, axis + 1)
    if value.dim() == 4 and axis == 0 and value.is_contiguous(memory_format=torch.channels_last):
        return value.permute(0, 2, 3, 1).index_select(0, positions).permute(0, 3, 1, 2)
    return value.index_select(axis, positions)


def reference_of(reference: Reference, positions: Tensor) -> Reference:
    """What the losses of these examples are measured against."""

    def each(leaf: Any) -> Any:
        if isinstance(leaf, ExampleList):
            return selected_entries(leaf, positions)
        return leaf.index_select(0, positions.to(leaf.device)) if isinstance(leaf, Tensor) and leaf.dim() else leaf

    return Reference(pytree.tree_map(each, reference.labels), pytree.tree_map(each, reference.dense), reference.scales)


def tiles(count: int, size: int) -> Iterator[Tensor]:
    """The numbers of `count` rows in full tiles; the last one is filled up with the last row."""
    return (torch.arange(start, start + size).clamp_max(count - 1) for start in range(0, count, size))
