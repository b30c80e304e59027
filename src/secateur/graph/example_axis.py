"""The axis of the examples: the first axis of a model's inputs, or none where the inputs are one example."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.draw_replay import draws_replayed
from secateur.graph.program import Program

TOLERANCE = 1e-3


def is_one_example(program: Program, batch: Batch) -> bool:
    """Return whether the inputs of the model are one example as a whole.

    It is where no axis of any output is as long as the first axis of the inputs (one result for 40 nodes), or where
    inputs of two axes or fewer, such as the features of nodes or points, give other results in other company.
    """
    outputs = [node.meta["val"] for node in program.output_nodes if isinstance(node.meta.get("val"), Tensor)]
    if program.batched is not None:
        if not any(program.scales(length) for output in outputs for length in output.shape):
            return True
        return all(tensor.dim() <= 2 for tensor in batch.tensors) and _depends_on_others(program, batch)
    return not any(length == batch.size for output in outputs for length in output.shape)


def _depends_on_others(program: Program, batch: Batch) -> bool:
    """Return whether the first half of a batch gives another result without the second half."""
    size = batch.size or 1
    half_size = (size + 1) // 2
    if size < 2 or not batch.is_divisible:
        return False
    try:
        pairs = zip(*_outputs_of_both(program, batch, batch.take(torch.arange(half_size))), strict=True)
    except DataError:  # the program holds for other sizes alone
        return False
    except (IndexError, RuntimeError):
        if not program.draws:
            raise
        return True  # the numbers that were drawn are positions of examples, such as a permutation
    return any(_outputs_differ(full, half, size, half_size) for full, half in pairs)


def _outputs_of_both(program: Program, batch: Batch, half: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs on a batch and on its first half, with the same random numbers."""

    def first_draws(number: int, values: Tensor, shape: torch.Size) -> Tensor:
        return values[: shape[0]] if shape else values

    with torch.no_grad():
        full_outputs = pytree.tree_leaves(program.forward(batch))
        with draws_replayed(program.draws, partial(program.forward, batch), first_draws):
            half_outputs = pytree.tree_leaves(program.forward(half))
    return _floats(full_outputs), _floats(half_outputs)


def _floats(leaves: list[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _outputs_differ(full: Tensor, half: Tensor, size: int, half_size: int) -> bool:
    """Return whether the first entries of an output are others without the second half of the batch."""
    if (
        not full.dim()
        or not half.dim()
        or full.shape[1:] != half.shape[1:]
        or (len(full), len(half)) != (size, half_size)
    ):
        return False
    scale = float(full.abs().max()) if full.numel() else 0.0
    return float((full[:half_size] - half).abs().max()) > TOLERANCE * max(scale, 1e-6)
