"""Whether a model's inputs hold examples along their first axis, or are one example: one graph, one set of points."""

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.program import Program
from secateur.graph.random_draws import replayed

TOLERANCE = 1e-3


def is_one_example(program: Program, batch: Batch) -> bool:
    """Whether what the model takes is one example as a whole.

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
    """Whether the first half of a batch gives another result without the second half, as far as it can be run."""
    size = batch.size or 1
    first = (size + 1) // 2
    if size < 2 or not batch.is_divisible:
        return False

    def of_half(number: int, drawn: Tensor, shape: torch.Size) -> Tensor:
        return drawn[: shape[0]] if shape else drawn

    draws = replayed(program.draws, partial(program.forward, batch), of_half)
    with torch.no_grad():
        pair = []
        for part, context in ((batch, nullcontext()), (batch.take(torch.arange(first)), draws)):
            with context:
                try:
                    leaves = pytree.tree_leaves(program.forward(part))
                except DataError:  # the program holds for other sizes alone
                    return False
            pair.append([leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()])
    for whole, half in zip(*pair, strict=True):
        if whole.dim() and half.dim() and whole.shape[1:] == half.shape[1:] and len(whole) == size:
            scale = float(whole.abs().max()) if whole.numel() else 0.0
            if len(half) == first and float((whole[:first] - half).abs().max()) > TOLERANCE * max(scale, 1e-6):
                return True
    return False
