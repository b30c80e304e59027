"""Examples shuffled into new microbatches, for estimates from parts of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch, concat_batches
from secateur.data.forms import ExampleList
from secateur.importance.context import MICROBATCH, as_fast_layout


def shuffled_microbatches(microbatches: Sequence[Batch], generator: torch.Generator) -> list[tuple[Batch, Tensor]]:
    """Shuffle the examples into new microbatches, each with the old numbers of its examples.

    Neighbours in the data may be alike, microbatches should not be. Only examples of one shape can share a
    microbatch, and what is not divisible stays as it is.
    """
    starts = torch.tensor([0, *(batch.size or 1 for batch in microbatches)]).cumsum(0)
    by_form: dict[str, list[tuple[Batch, Tensor]]] = {}
    for number, batch in enumerate(microbatches):
        is_divisible = batch.size is not None and batch.is_divisible
        leaves = pytree.tree_leaves((batch.args, dict(batch.kwargs), batch.target))
        form = f"{[_form_of(leaf) for leaf in leaves]}" if is_divisible else f"{WHOLE_BATCH}{number}"
        by_form.setdefault(form, []).append((batch, torch.arange(int(starts[number]), int(starts[number + 1]))))
    shuffled = []
    for form, members in by_form.items():
        numbers = torch.cat([indices for _, indices in members])
        if form.startswith(WHOLE_BATCH):
            shuffled.append((members[0][0], numbers))
            continue
        joined = concat_batches([batch for batch, _ in members])
        order = torch.randperm(len(numbers), generator=generator)
        shuffled += [(joined.take(index).map(as_fast_layout), numbers[index]) for index in order.split(MICROBATCH)]
    return shuffled


WHOLE_BATCH = "whole batch "


def _form_of(leaf: Any) -> Any:
    """Return what leaves of two batches must have in common to be concatenated."""
    if isinstance(leaf, ExampleList):
        return "by example"
    return (leaf.shape[1:], leaf.dtype) if isinstance(leaf, Tensor) and leaf.dim() else leaf
