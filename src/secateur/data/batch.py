"""Examples in the forms that people have them, as batches of the model's inputs and targets."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset, IterableDataset

from secateur.data.forms import (
    ExampleList,
    as_target,
    as_tensors,
    batches_of_rows,
    is_array,
    is_row,
    is_table,
)
from secateur.errors import DataError

BATCH_SIZE = 32  # of data sets that come without one


@dataclass(frozen=True)
class Batch:
    """One batch: positional and keyword inputs of the model, and the targets if there are any.

    Tensors whose first axis is the number of examples, and an `ExampleList`, hold something of each example.

    Args:
        args, kwargs: the inputs.
        target: the targets, or None.
        is_one_example: whether all of it is one example, such as a graph, whose nodes lie along the first axis.
        is_whole: whether the model takes it as it is alone, since its code fixes the batch size.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    target: Any = None
    is_one_example: bool = False
    is_whole: bool = False

    @property
    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in pytree.tree_leaves((self.args, dict(self.kwargs))) if isinstance(leaf, Tensor)]

    @property
    def size(self) -> int | None:
        """The number of examples: what the first axes of all inputs agree on, else the first input's."""
        if self.is_one_example:
            return 1
        sizes = [tensor.shape[0] for tensor in self.tensors if not tensor.is_nested and tensor.dim()]
        return sizes[0] if sizes else None

    @property
    def is_divisible(self) -> bool:
        """Whether its examples can be taken apart: they lie along the first axis of every input, in any number."""
        size = self.size
        is_fixed = self.is_one_example or self.is_whole
        return not is_fixed and all(tensor.dim() and tensor.shape[0] == size for tensor in self.tensors)

    def map(
        self,
        change: Callable[[Tensor], Tensor],
        change_list: Callable[[ExampleList], ExampleList] = lambda values: values,
    ) -> "Batch":
        """The batch with `change` applied to every tensor whose first axis is the batch, and `change_list` to lists."""
        if self.is_one_example:
            return self
        size = self.size

        def each(leaf: Any) -> Any:
            if isinstance(leaf, ExampleList) and len(leaf) == size:
                return change_list(leaf)
            return change(leaf) if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == size else leaf

        args, kwargs, target = pytree.tree_map(each, (self.args, dict(self.kwargs), self.target))
        return replace(self, args=args, kwargs=kwargs, target=target)

    def take(self, index: Tensor) -> "Batch":
        """The batch of only these examples."""
        return self.map(lambda tensor: tensor[index.to(tensor.device)], lambda values: selected_entries(values, index))

    def with_copied_inputs(self) -> "Batch":
        """The batch with inputs in memory of their own, which a model may write to."""
        args, kwargs = pytree.tree_map(
            lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, (self.args, dict(self.kwargs))
        )
        return replace(self, args=args, kwargs=kwargs)

    @property
    def has_target_by_example(self) -> bool:
        """Whether the targets, if there are any, can be split between examples."""
        leaves = (leaf for leaf in pytree.tree_leaves(self.target) if leaf is not None)
        return all(
            isinstance(leaf, ExampleList | Tensor) and (not isinstance(leaf, Tensor) or leaf.dim() > 0)
            and len(leaf) == self.size
            for leaf in leaves
        )  # fmt: skip

    def without_target(self) -> "Batch":
        """The batch without its targets."""
        return replace(self, target=None)


def selected_entries(values: ExampleList, index: Tensor) -> ExampleList:
    """The entries of some examples, in the order of `index`."""
    return ExampleList(values[position] for position in index.tolist())


def as_batch(item: Any, dtype: torch.dtype | None = None) -> Batch:
    """One item of the user's data as a batch: `(inputs, target)`, a dict of inputs, or inputs alone.

    Args:
        item: the item, of tensors, numpy arrays or lists of numbers.
        dtype: of floating-point arrays; by default torch's default.

    Raises:
        DataError: the item has none of these forms.
    """
    if isinstance(item, Batch):
        return item
    item = (item,) if isinstance(item, PackedSequence) else item
    if isinstance(item, list | tuple) and len(item) in (1, 2) and not is_array(item):
        return _with_target(*_inputs(item[0], dtype), item[1] if len(item) == 2 else None, dtype)
    if isinstance(item, list | tuple) and not is_array(item):
        raise DataError(
            f"a batch is a {type(item).__name__} of {len(item)} items; give (inputs, target), where several inputs are "
            "one tuple or dict, or inputs alone"
        )
    args, kwargs = _inputs(item, dtype)
    return _with_target(args, kwargs, kwargs.pop("labels", None) if kwargs else None, dtype)


def _with_target(args: tuple[Any, ...], kwargs: dict[str, Any], target: Any, dtype: torch.dtype | None) -> Batch:
    return Batch(args, kwargs, as_target(target, Batch(args, kwargs).size, dtype))


def _inputs(inputs: Any, dtype: torch.dtype | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), {str(name): as_tensors(value, dtype) for name, value in inputs.items() if value is not None}
    for value in (inputs, *inputs) if isinstance(inputs, list | tuple) else [inputs]:
        if isinstance(value, PackedSequence):
            raise DataError(
                "a packed sequence can't be taken apart into examples; give the padded tensor and its lengths "
                "(torch.nn.utils.rnn.pad_packed_sequence), and let the model's forward pack them"
            )
    tensors = as_tensors(inputs, dtype)
    return (tuple(tensors), {}) if isinstance(tensors, list | tuple) else ((tensors,), {})


def as_batches(data: Any, batch_size: int = BATCH_SIZE, dtype: torch.dtype | None = None) -> list[Batch]:
    """All of the data as batches, in order.

    Args:
        data: any iterable of batches, or one batch: a tensor, a dict of tensors, or a pair of tensors (inputs, target);
            or single examples, which are batched here by the shapes of their inputs: a `Dataset`, one of the library
            `datasets`, a list of dicts of numbers and lists, or of pairs (input, class number). Numpy arrays and lists
            of numbers are as good as tensors.
        batch_size: for single examples.
        dtype: of floating-point arrays; by default torch's default. Tensors keep their own.

    Raises:
        DataError: there are no batches, or one is empty, or has NaN or infinity in it.
    """
    batches = [as_batch(item, dtype) for item in _items(data, batch_size, dtype)]
    batches = _by_example_alike(batches)
    if not batches:
        raise DataError("data gave no batches; a generator that was used up gives none, so pass a list or a DataLoader")
    for number, batch in enumerate(batches):
        _check(batch, number)
    return batches


def _items(data: Any, batch_size: int, dtype: torch.dtype | None) -> list[Any]:
    """Each item is one batch, in one of the forms that `as_batch` takes.

    Raises:
        DataError: data are nothing that can be gone through.
    """
    if isinstance(data, Mapping) and any(is_table(split) for split in data.values()):
        raise DataError(f"data is a {type(data).__name__} of {', '.join(map(str, data))}; give one of these")
    if isinstance(data, Mapping) and _are_columns(data):
        data = [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]
        return list(batches_of_rows(data, batch_size, dtype))
    if isinstance(data, Batch | Tensor | np.ndarray | Mapping) or _is_pair_of_arrays(data):
        return [data]
    if is_table(data):
        return list(batches_of_rows(data, batch_size, dtype))
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        rows = (data[number] for number in range(len(data)))  # type: ignore[arg-type]
        return list(batches_of_rows(rows, batch_size, dtype))
    if not isinstance(data, Iterable) or isinstance(data, str | bytes):
        raise DataError(f"data is a {type(data).__name__}; give an iterable of batches, such as a DataLoader or a list")
    items = list(data)
    return list(batches_of_rows(items, batch_size, dtype)) if items and all(map(is_row, items)) else items


def _is_pair_of_arrays(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor | np.ndarray) for part in data)


def _are_columns(data: Mapping[Any, Any]) -> bool:
    """Whether a dict holds lists of one length, one entry for each example."""
    columns = list(data.values())
    if not all(isinstance(column, list) and column and not isinstance(column[0], Tensor) for column in columns):
        return False
    return len({len(column) for column in columns}) == 1


def _by_example_alike(batches: Sequence[Batch]) -> list[Batch]:
    """Lists of targets read in one way in all batches: if one has an entry for each example, all have."""
    if not any(isinstance(batch.target, ExampleList) for batch in batches):
        return list(batches)
    return [
        Batch(batch.args, batch.kwargs, ExampleList(batch.target))
        if isinstance(batch.target, list | tuple) and len(batch.target) == batch.size
        else batch
        for batch in batches
    ]


NOT_DENSE: Mapping[str, Callable[[Tensor], bool]] = {
    "tensor on the meta device, which holds no values; give real examples": lambda tensor: tensor.is_meta,
    "nested tensor, which has no one shape; pad it (tensor.to_padded_tensor)": lambda tensor: tensor.is_nested,
    "quantized tensor; give tensor.dequantize()": lambda tensor: tensor.is_quantized,
    "sparse tensor; give tensor.to_dense()": lambda tensor: tensor.layout != torch.strided,
}


def _check(batch: Batch, number: int) -> None:
    if not batch.tensors:
        kinds = [type(value).__name__ for value in (*batch.args, *batch.kwargs.values())]
        raise DataError(f"batch {number} holds no tensors, but {kinds}")
    if batch.size == 0:
        raise DataError(f"batch {number} is empty: its first input has shape {tuple(batch.tensors[0].shape)}")
    for tensor in batch.tensors:
        kind = next((kind for kind, holds in NOT_DENSE.items() if holds(tensor)), None)
        if kind is not None:
            raise DataError(f"an input of batch {number} is a {kind}")
    for tensor in batch.tensors:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(
                f"batch {number} has NaN or infinity in an input of shape {tuple(tensor.shape)}; mend the data"
            )


def concat_batches(batches: Sequence[Batch]) -> Batch:
    """Batches of examples of one shape as one batch."""

    def together(*leaves: Any) -> Any:
        if isinstance(leaves[0], ExampleList):
            return ExampleList(entry for leaf in leaves for entry in leaf)
        return torch.cat(leaves) if isinstance(leaves[0], Tensor) and leaves[0].dim() else leaves[0]

    parts = [(batch.args, dict(batch.kwargs), batch.target) for batch in batches]
    return Batch(*pytree.tree_map(together, *parts))


def input_error(title: str, batch: Batch, failure: Exception, dtype: torch.dtype | None = None) -> DataError:
    """The error for inputs that a model refuses, with the model's own words.

    Args:
        title: the model's class.
        batch: the inputs.
        failure: the model's own error.
        dtype: the type of its floating-point parameters, if it has any.
    """
    shapes = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in batch.tensors)
    other = [tensor.dtype for tensor in batch.tensors if tensor.is_floating_point() and tensor.dtype != dtype]
    whole = [tensor.dtype for tensor in batch.tensors if not tensor.is_floating_point()]
    advice = ""
    if dtype is not None and (other or (whole and "type" in str(failure))):
        advice = f"\nThe model's parameters are {dtype}; data of {(other or whole)[0]} can be given as x.to({dtype})"
    return DataError(f"{title} refuses inputs {shapes}: {type(failure).__name__}: {failure}{advice}")


def floating_type(model: nn.Module) -> torch.dtype | None:
    """The type of a model's first floating-point parameter; None where it has none."""
    return next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), None)


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU where it has none."""
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def example_batches(example: Any, device: torch.device, dtype: torch.dtype | None = None) -> list[Batch]:
    """What to trace with: two examples, and where a model won't have these, the example as it was given.

    Args:
        example: the model's input, a tuple of its inputs, a dict of them, or batches as `as_batches` takes them.
        device: where the model is.
        dtype: of floating-point arrays; by default torch's default.
    """
    if isinstance(example, Tensor | np.ndarray | Mapping | tuple):
        args, kwargs = _inputs(example, dtype)
        kwargs.pop("labels", None)
        given = Batch(args, kwargs)
        _check(given, 0)
    else:
        given = as_batches(example, dtype=dtype)[0]
    given = on_device(Batch(given.args, given.kwargs), device)
    size = given.size
    if not given.is_divisible:
        return [given]
    pair = given.map(lambda tensor: torch.cat([tensor, tensor]) if size == 1 else tensor[:2])
    return [pair] if size == 2 else [pair, given]


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on a device."""

    def moved(leaf: Any) -> Any:
        if isinstance(leaf, ExampleList):
            return ExampleList(pytree.tree_map(moved, list(leaf)))
        return leaf.to(device) if isinstance(leaf, Tensor) else leaf

    args, kwargs, target = pytree.tree_map(moved, (batch.args, dict(batch.kwargs), batch.target))
    return replace(batch, args=args, kwargs=kwargs, target=target)
