"""Examples of a microbatch selected, in any order and number, from the values at a cut."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import selected_entries
from secateur.data.forms import ExampleList
from secateur.evaluation.losses import Reference
from secateur.graph.program import Program


def select_rows(program: Program, recorded_value: Any, value: Any, positions: Tensor, examples: int) -> Any:
    """Return a node's value for these examples of a microbatch, one after the other along the batch.

    Args:
        program: the program of the node.
        recorded_value: the export's record of the node's value.
        value: its value for the microbatch.
        positions: the positions of the examples, (rows,), on the value's device.
        examples: the number of examples of the microbatch.
    """
    if isinstance(value, list | tuple):
        entries = zip(recorded_value, value, strict=True)
        return type(value)(select_rows(program, record, entry, positions, examples) for record, entry in entries)
    if isinstance(value, Tensor):
        axis = program.batch_axis(recorded_value)
        return value if axis is None else _select_along(value, axis, positions, examples)
    return value // examples * len(positions) if program.scales(recorded_value) else value


def _select_along(value: Tensor, axis: int, positions: Tensor, examples: int) -> Tensor:
    if value.shape[axis] != examples:  # whatever shares the axis with the batch follows its example
        by_example: Tensor = value.unflatten(axis, (examples, -1))
        return by_example.index_select(axis, positions).flatten(axis, axis + 1)
    if value.dim() == 4 and axis == 0 and value.is_contiguous(memory_format=torch.channels_last):
        return value.permute(0, 2, 3, 1).index_select(0, positions).permute(0, 3, 1, 2)
    return value.index_select(axis, positions)


def select_reference(reference: Reference, positions: Tensor) -> Reference:
    """Return the reference of these examples' losses."""

    def select(leaf: Any) -> Any:
        if isinstance(leaf, ExampleList):
            return selected_entries(leaf, positions)
        return leaf.index_select(0, positions.to(leaf.device)) if isinstance(leaf, Tensor) and leaf.dim() else leaf

    labels, dense = (pytree.tree_map(select, values) for values in (reference.labels, reference.dense))
    return replace(reference, labels=labels, dense=dense)


def tiles(count: int, size: int) -> Iterator[Tensor]:
    """Yield the numbers of `count` rows in full tiles; the last tile is filled up with the last row."""
    return (torch.arange(start, start + size).clamp_max(count - 1) for start in range(0, count, size))
