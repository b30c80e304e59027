"""The axis of the examples: the first axis of a model's inputs, or none where the inputs are one example."""

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.draw_replay import draws_replayed
from secateur.graph.program import Program

TOLERANCE = 1e-3


def is_one_example(program: Program, batch: Batch) -> bool:
    """True if the inputs of the model are one example as a whole.

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
    """True if the first half of a batch gives another result without the second half."""
    size = batch.size or 1
    first = (size + 1) // 2
    if size < 2 or not batch.is_divisible:
        return False

    def first_draws(number: int, values: Tensor, shape: torch.Size) -> Tensor:
        return values[: shape[0]] if shape else values

    draws = draws_replayed(program.draws, partial(program.forward, batch), first_draws)
    with torch.no_grad():
        pair = []
        for tested, context in ((batch, nullcontext()), (batch.take(torch.arange(first)), draws)):
            with context:
                try:
                    leaves = pytree.tree_leaves(program.forward(tested))
                except DataError:  # the program holds for other sizes alone
                    return False
                except (IndexError, RuntimeError):
                    if not program.draws:
                        raise
                    return True  # the numbers that were drawn are positions of examples, such as a permutation
            pair.append([leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()])
    for full, half in zip(*pair, strict=True):
        if full.dim() and half.dim() and full.shape[1:] == half.shape[1:] and len(full) == size:
            scale = float(full.abs().max()) if full.numel() else 0.0
            if len(half) == first and float((full[:first] - half).abs().max()) > TOLERANCE * max(scale, 1e-6):
                return True
    return False
