"""Conversion of arrays, lists, and rows and columns of data sets to tensors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset, IterableDataset

from secateur.errors import DataError
from secateur.utils.collected_warnings import warn

LABEL_KEYS = ("labels", "label", "label_ids")


class ExampleList(list[Any]):
    """A list with one entry for each example of a batch, such as the boxes of each image."""


def is_numeric(value: object) -> bool:
    """Return whether a value is one number: of Python, of numpy, or a tensor without axes."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 0
    return isinstance(value, Number | np.generic)


def are_numbers(value: object) -> bool:
    """Return whether a value is a non-empty list of numbers."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(is_numeric(entry) for entry in value)


def has_numbers_alone(value: object) -> bool:
    """Return whether a value is a list, nested or not, that contains only plain numbers."""
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(has_numbers_alone(entry) or isinstance(entry, Number | np.generic) for entry in value)


def is_array(value: object) -> bool:
    """Return whether a list is an array, not a pair of inputs and targets; a tuple only if it contains numbers."""
    if not has_numbers_alone(value):
        return False
    assert isinstance(value, list | tuple)
    return are_numbers(value) or (isinstance(value, list) and len({_depth(entry) for entry in value}) == 1)


def _depth(value: object) -> int:
    return 1 + _depth(value[0]) if isinstance(value, list | tuple) and value else 0


def as_tensor(value: Any, dtype: torch.dtype | None = None) -> Any:
    """Convert arrays and lists of numbers to tensors; return other values unchanged.

    Args:
        value: the array, list, tensor or other value.
        dtype: of floating-point arrays; by default torch's default. Tensors keep their own.

    Raises:
        DataError: an array contains values other than numbers.
    """
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value.detach()  # neither could be differentiated as it is
    if are_numbers(value) and isinstance(value[0], Tensor):
        return torch.stack(list(value))
    if isinstance(value, np.ndarray | np.generic) or has_numbers_alone(value):
        return _from_array(value, dtype)
    return value


def _from_array(value: Any, dtype: torch.dtype | None) -> Any:
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return value
    if array.dtype.kind not in "biuf":
        raise DataError(f"the data hold an array of {array.dtype}; give numbers")
    native = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")  # torch takes no other bytes and strides
    tensor = torch.from_numpy(native)
    return tensor.to(dtype or torch.get_default_dtype()) if tensor.dtype == torch.float64 else tensor


def as_tensors(value: Any, dtype: torch.dtype | None = None) -> Any:
    """Convert every array within dicts, lists and tuples to a tensor."""

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, ExampleList):
            return ExampleList(as_tensors(entry, dtype) for entry in leaf)
        return as_tensor(leaf, dtype)

    return pytree.tree_map(convert, value, is_leaf=lambda node: are_numbers(node) or has_numbers_alone(node))


def all_leaves(value: Any) -> list[Any]:
    """Return the leaves of dicts, lists and tuples, and of each `ExampleList`."""
    leaves = pytree.tree_leaves(value)
    return [
        nested for leaf in leaves for nested in (all_leaves(list(leaf)) if isinstance(leaf, ExampleList) else [leaf])
    ]


def as_target(target: Any, size: int | None, dtype: torch.dtype | None = None) -> Any:
    """Convert targets: arrays and lists of numbers to tensors, lists with one entry per example to `ExampleList`.

    Args:
        target: the target of a batch.
        size: the number of examples.
        dtype: of floating-point arrays.
    """
    if isinstance(target, ExampleList):
        return as_tensors(target, dtype)
    if isinstance(target, Mapping):
        return {name: as_target(entry, size, dtype) for name, entry in target.items()}
    plain_target = as_tensor(target, dtype)
    if type(plain_target) not in (list, tuple):
        return plain_target
    if len(plain_target) == size and not all(_has_length(entry, size) for entry in plain_target):
        return as_tensors(ExampleList(plain_target), dtype)
    return type(plain_target)(as_target(entry, size, dtype) for entry in plain_target)


def _has_length(value: object, size: int) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim > 0 and value.shape[0] == size


def is_row(item: object) -> bool:
    """Return whether an item is one example: its label is a number or a text, or an input a list of numbers."""
    if isinstance(item, Mapping):
        has_label = any(is_numeric(item[key]) for key in LABEL_KEYS if key in item)
        return has_label or any(isinstance(value, list) and are_numbers(value) for value in item.values())
    if not isinstance(item, tuple | list) or len(item) != 2:
        return False
    is_text = isinstance(item[1], str) and isinstance(item[0], Tensor | np.ndarray)
    return is_text or (is_numeric(item[1]) and not is_numeric(item[0]))


def is_table(data: object) -> bool:
    """Return whether data are a data set of the library `datasets`, whose items are rows."""
    return hasattr(data, "column_names") and hasattr(data, "features") and hasattr(data, "__iter__")


def is_data_set(data: object) -> bool:
    """Return whether data give examples by their numbers, as a `Dataset` does, and are no container of Python."""
    if isinstance(data, Dataset):
        return not isinstance(data, IterableDataset)
    return hasattr(data, "__getitem__") and hasattr(data, "__len__") and not hasattr(data, "__iter__")


def batches_of_rows(rows: Iterable[Any], batch_size: int, dtype: torch.dtype | None) -> Iterator[Any]:
    """Collate rows to batches of examples whose inputs have one shape, as (inputs, target) or dicts."""
    by_shape: dict[str, list[Any]] = {}
    left_out: dict[str, None] = {}
    for row in rows:
        example = as_tensors(_with_one_label(row, left_out) if isinstance(row, Mapping) else row, dtype)
        same_shape = by_shape.setdefault(_shapes_of_inputs(example), [])
        same_shape.append(example)
    if left_out:
        warn(f"the columns {', '.join(left_out)} hold text, which no model takes; left out")
    for same_shape in by_shape.values():
        for start in range(0, len(same_shape), batch_size):
            yield collate(same_shape[start : start + batch_size])


def _with_one_label(row: Mapping[Any, Any], left_out: dict[str, None]) -> dict[str, Any]:
    """Return a row's numbers, with its label named `labels`; note the columns of text in `left_out`."""
    key = next((key for key in LABEL_KEYS if key in row), None)
    numbers = {}
    for name, value in row.items():
        if isinstance(value, str | bytes) or (isinstance(value, list) and value and isinstance(value[0], str)):
            left_out[str(name)] = None
        elif value is not None:
            numbers["labels" if name == key else str(name)] = value
    return numbers


def _shapes_of_inputs(example: Any) -> str:
    inputs = {k: v for k, v in example.items() if k != "labels"} if isinstance(example, Mapping) else example
    inputs = inputs[0] if isinstance(inputs, tuple | list) and len(inputs) == 2 else inputs
    leaves = pytree.tree_leaves(inputs)
    return repr([(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves])


def collate(examples: Sequence[Any]) -> Any:
    """Collate examples: stacked if they have one shape, else as an `ExampleList`."""
    first_example = examples[0]
    if all(isinstance(example, Tensor) and example.shape == first_example.shape for example in examples):
        return torch.stack(list(examples))
    if all(isinstance(example, Number | np.generic) for example in examples):
        return as_tensor(list(examples))
    if all(isinstance(example, Mapping) and example.keys() == first_example.keys() for example in examples):
        return {name: collate([example[name] for example in examples]) for name in first_example}
    if all(isinstance(example, tuple | list) and len(example) == len(first_example) for example in examples):
        return tuple(collate(column) for column in zip(*examples, strict=True))
    return None if all(example is None for example in examples) else ExampleList(examples)
