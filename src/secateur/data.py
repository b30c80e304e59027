"""Examples in the forms that people have them, as batches of the model's inputs and targets."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, IterableDataset

from secateur.errors import DataError


@dataclass(frozen=True)
class Batch:
    """One batch: positional and keyword inputs of the model, and the targets if there are any."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    target: Any = None

    @property
    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in pytree.tree_leaves((self.args, dict(self.kwargs))) if isinstance(leaf, Tensor)]

    @property
    def size(self) -> int | None:
        """The number of examples: what the first axes of all inputs agree on, else the first input's."""
        sizes = [tensor.shape[0] for tensor in self.tensors if tensor.dim()]
        return sizes[0] if sizes else None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with `change` applied to every tensor whose first axis is the batch."""
        size = self.size

        def each(leaf: Any) -> Any:
            return change(leaf) if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == size else leaf

        args, kwargs, target = pytree.tree_map(each, (self.args, dict(self.kwargs), self.target))
        return Batch(args, kwargs, target)

    def take(self, index: Tensor) -> "Batch":
        """The batch of only these examples."""
        return self.map(lambda tensor: tensor[index.to(tensor.device)])


def as_batch(item: Any) -> Batch:
    """One item of the user's data as a batch: `(inputs, target)`, a dict of inputs, or inputs alone.

    Raises:
        DataError: the item has none of these forms.
    """
    if isinstance(item, Batch):
        return item
    if isinstance(item, list | tuple) and len(item) in (1, 2):
        target = item[1] if len(item) == 2 else None
        return Batch(*_inputs(item[0]), target)
    if isinstance(item, list | tuple):
        raise DataError(
            f"a batch is a {type(item).__name__} of {len(item)} items; give (inputs, target), where several inputs are "
            "one tuple or dict, or inputs alone"
        )
    args, kwargs = _inputs(item)
    target = kwargs.pop("labels", None) if kwargs else None
    return Batch(args, kwargs, target)


def _inputs(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), {str(name): value for name, value in inputs.items() if value is not None}
    if isinstance(inputs, list | tuple):
        return tuple(inputs), {}
    return (inputs,), {}


def as_batches(data: Any, batch_size: int = 32) -> list[Batch]:
    """All of the data as batches, in order.

    Args:
        data: any iterable of batches; a `Dataset`, which is batched here; or one batch: a tensor, a dict of tensors,
            or a pair of tensors (inputs, target).
        batch_size: for a `Dataset`.

    Raises:
        DataError: there are no batches, or one is empty, or has NaN or infinity in it.
    """
    if isinstance(data, Batch | Tensor | Mapping) or _is_pair_of_tensors(data):
        data = [data]
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        data = DataLoader(data, batch_size=batch_size)
    if not isinstance(data, Iterable):
        raise DataError(f"data is a {type(data).__name__}; give an iterable of batches, such as a DataLoader or a list")
    batches = [as_batch(item) for item in data]
    if not batches:
        raise DataError("data gave no batches; a generator that was used up gives none, so pass a list or a DataLoader")
    for number, batch in enumerate(batches):
        _check(batch, number)
    return batches


def _is_pair_of_tensors(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def _check(batch: Batch, number: int) -> None:
    if not batch.tensors:
        raise DataError(f"batch {number} holds no tensors, but {[type(arg).__name__ for arg in batch.args]}")
    if batch.size == 0:
        raise DataError(f"batch {number} is empty: its first input has shape {tuple(batch.tensors[0].shape)}")
    for tensor in batch.tensors:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(
                f"batch {number} has NaN or infinity in an input of shape {tuple(tensor.shape)}; mend the data"
            )


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches of examples of one shape as one batch."""

    def together(*leaves: Any) -> Any:
        return torch.cat(leaves) if isinstance(leaves[0], Tensor) and leaves[0].dim() else leaves[0]

    parts = [(batch.args, dict(batch.kwargs), batch.target) for batch in batches]
    return Batch(*pytree.tree_map(together, *parts))


def refusal(title: str, batch: Batch, failure: Exception) -> DataError:
    """The error for inputs that a model refuses, with the model's own words."""
    shapes = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in batch.tensors)
    return DataError(f"{title} refuses inputs {shapes}: {type(failure).__name__}: {failure}")


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU where it has none."""
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def example_batches(example: Any, device: torch.device) -> list[Batch]:
    """What to trace with: two examples, and where a model won't have these, the example as it was given.

    Args:
        example: the model's input, a tuple of its inputs, a dict of them, or batches as `as_batches` takes them.
        device: where the model is.
    """
    if isinstance(example, Tensor | Mapping | tuple):
        args, kwargs = _inputs(example)
        kwargs.pop("labels", None)
        given = Batch(args, kwargs)
        _check(given, 0)
    else:
        given = as_batches(example)[0]
    given = on_device(Batch(given.args, given.kwargs), device)
    size = given.size
    if not all(tensor.dim() and tensor.shape[0] == size for tensor in given.tensors):
        return [given]
    pair = given.map(lambda tensor: torch.cat([tensor, tensor]) if size == 1 else tensor[:2])
    return [pair] if size == 2 else [pair, given]


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on a device."""

    def moved(leaf: Any) -> Any:
        return leaf.to(device) if isinstance(leaf, Tensor) else leaf

    args, kwargs, target = pytree.tree_map(moved, (batch.args, dict(batch.kwargs), batch.target))
    return Batch(args, kwargs, target)
