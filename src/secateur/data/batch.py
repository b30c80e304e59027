"""A batch of a model's inputs and targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.data.forms import (
    ExampleList,
)


@dataclass(frozen=True)
class Batch:
    """A batch: positional and keyword inputs of the model, and its targets.

    Tensors whose first axis is the number of examples, and each `ExampleList`, have one entry per example.

    Args:
        args, kwargs: the inputs.
        target: the targets, or None.
        is_one_example: whether the batch is one example, such as a graph whose nodes lie along the first axis.
        is_whole: whether the batch can't be divided, because the model's code fixes the batch size.
        metric_target: targets that only the user's metric can read, such as those of detection; None where `target`
            serves both.
        has_labels: whether the targets came as `labels` among the inputs, as models of the transformers library take
            them: those of causal language models are the input tokens, not yet shifted.
        has_token_scores: whether the model's output for the batch is a plain tensor of class scores of each token,
            (examples, positions, classes).
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    target: Any = None
    is_one_example: bool = False
    is_whole: bool = False
    metric_target: Any = None
    has_labels: bool = False
    has_token_scores: bool = False

    @property
    def tensors(self) -> list[Tensor]:
        """The input tensors."""
        return [leaf for leaf in pytree.tree_leaves((self.args, dict(self.kwargs))) if isinstance(leaf, Tensor)]

    @property
    def size(self) -> int | None:
        """The number of examples: the length of the first axis of the first input."""
        if self.is_one_example:
            return 1
        sizes = [tensor.shape[0] for tensor in self.tensors if not tensor.is_nested and tensor.dim()]
        return sizes[0] if sizes else None

    @property
    def is_divisible(self) -> bool:
        """True if any subset of the examples is a valid batch: all inputs have them along their first axis."""
        size = self.size
        is_fixed = self.is_one_example or self.is_whole
        return not is_fixed and all(tensor.dim() and tensor.shape[0] == size for tensor in self.tensors)

    def map(
        self,
        change: Callable[[Tensor], Tensor],
        change_list: Callable[[ExampleList], ExampleList] = lambda values: values,
    ) -> "Batch":
        """Apply `change` to every tensor whose first axis is the batch, and `change_list` to every `ExampleList`."""
        if self.is_one_example:
            return self
        size = self.size

        def convert(leaf: Any) -> Any:
            if isinstance(leaf, ExampleList) and len(leaf) == size:
                return change_list(leaf)
            return change(leaf) if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == size else leaf

        leaves = (self.args, dict(self.kwargs), self.target, self.metric_target)
        args, kwargs, target, metric_target = pytree.tree_map(convert, leaves)
        return replace(self, args=args, kwargs=kwargs, target=target, metric_target=metric_target)

    def take(self, index: Tensor) -> "Batch":
        """Select examples by their positions."""
        return self.map(lambda tensor: tensor[index.to(tensor.device)], lambda values: selected_entries(values, index))

    def with_copied_inputs(self) -> "Batch":
        """Copy the inputs, so that a model may write to them."""
        args, kwargs = pytree.tree_map(
            lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, (self.args, dict(self.kwargs))
        )
        return replace(self, args=args, kwargs=kwargs)

    @property
    def has_target_by_example(self) -> bool:
        """True if the targets, if any, have one entry per example."""
        leaves = (leaf for leaf in pytree.tree_leaves((self.target, self.metric_target)) if leaf is not None)
        return all(
            isinstance(leaf, ExampleList | Tensor) and (not isinstance(leaf, Tensor) or leaf.dim() > 0)
            and len(leaf) == self.size
            for leaf in leaves
        )  # fmt: skip

    def without_target(self) -> "Batch":
        """Return the batch without its targets."""
        return replace(self, target=None)

    def with_metric_target(self) -> "Batch":
        """Return the batch with its targets for the user's metric alone."""
        return replace(self, target=None, metric_target=self.target)


def selected_entries(values: ExampleList, index: Tensor) -> ExampleList:
    """Select entries by position, in the order of `index`."""
    return ExampleList(values[position] for position in index.tolist())


def concat_batches(batches: Sequence[Batch]) -> Batch:
    """Concatenate batches of examples of one shape."""

    def concat_leaves(*leaves: Any) -> Any:
        if isinstance(leaves[0], ExampleList):
            return ExampleList(entry for leaf in leaves for entry in leaf)
        return torch.cat(leaves) if isinstance(leaves[0], Tensor) and leaves[0].dim() else leaves[0]

    trees = [(batch.args, dict(batch.kwargs), batch.target, batch.metric_target) for batch in batches]
    args, kwargs, target, metric_target = pytree.tree_map(concat_leaves, *trees)
    return replace(batches[0], args=args, kwargs=kwargs, target=target, metric_target=metric_target)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Move all tensors of a batch to a device."""

    def move_leaf(leaf: Any) -> Any:
        if isinstance(leaf, ExampleList):
            return ExampleList(pytree.tree_map(move_leaf, list(leaf)))
        return leaf.to(device) if isinstance(leaf, Tensor) else leaf

    leaves = (batch.args, dict(batch.kwargs), batch.target, batch.metric_target)
    args, kwargs, target, metric_target = pytree.tree_map(move_leaf, leaves)
    return replace(batch, args=args, kwargs=kwargs, target=target, metric_target=metric_target)
