"""Neighbouring batches divided anew, so that results do not depend on how examples are grouped."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch, concat_batches
from secateur.data.forms import ExampleList


def example_form(batch: Batch) -> str | None:
    """Return what batches must have in common for their examples to share one; None where they can't be divided.

    Args:
        batch: the batch.
    """
    if batch.size is None or not batch.is_divisible or not batch.has_target_by_example:
        return None
    leaves, structure = pytree.tree_flatten((batch.args, dict(batch.kwargs), batch.target, batch.metric_target))
    return f"{structure} {[_leaf_form(leaf) for leaf in leaves]}"


def regrouped_batches(batches: Sequence[Batch], size: int) -> list[Batch]:
    """Divide neighbouring batches of one form anew, into batches of `size` examples and a rest, in the same order.

    Args:
        batches: the batches; those that can't be divided stay as they are.
        size: the number of examples of a new batch.
    """
    new_batches = list[Batch]()
    for form, members in itertools.groupby(batches, example_form):
        neighbours = list(members)
        is_joined = form is not None and len(neighbours) > 1
        new_batches += _batches_of_size(neighbours, size) if is_joined else neighbours
    return new_batches


def _batches_of_size(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Divide batches of one form into batches of `size` examples and a rest."""
    pieces, missing = list[Batch](), size
    for batch in batches:
        examples = batch.size or 1
        count = min(missing, examples)
        for index in (torch.arange(count), *torch.arange(count, examples).split(size)):
            if not len(index):
                continue
            pieces.append(batch if len(index) == examples else batch.take(index))
            missing -= len(index)
            if not missing:
                yield concat_batches(pieces)
                pieces, missing = [], size
    if pieces:
        yield concat_batches(pieces)


def _leaf_form(leaf: Any) -> Any:
    """Return what leaves of two batches must have in common to be concatenated."""
    if isinstance(leaf, ExampleList):
        return "by example"
    return (leaf.shape[1:], leaf.dtype, leaf.device) if isinstance(leaf, Tensor) and leaf.dim() else leaf
