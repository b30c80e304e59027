"""Data in the forms that people have it: arrays, lists, rows of a data set, columns; turned into batches of tensors."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.errors import DataError

LABEL_KEYS = ("labels", "label", "label_ids")


class ExampleList(list[Any]):
    """A list with one entry for each example of a batch, such as the boxes of each image."""


def is_numeric(value: object) -> bool:
    """Whether a value is one number: of Python, of numpy, or a tensor without axes."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 0
    return isinstance(value, Number | np.generic)


def are_numbers(value: object) -> bool:
    """Whether a value is a list of numbers, not empty."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(is_numeric(each) for each in value)


def has_numbers_alone(value: object) -> bool:
    """Whether a value is a list, nested or not, of nothing but plain numbers."""
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(has_numbers_alone(each) or isinstance(each, Number | np.generic) for each in value)


def is_array(value: object) -> bool:
    """Whether a list is an array by itself, not a pair of inputs and targets: a tuple only where it holds numbers."""
    if not has_numbers_alone(value):
        return False
    assert isinstance(value, list | tuple)
    return are_numbers(value) or (isinstance(value, list) and len({_depth(each) for each in value}) == 1)


def _depth(value: object) -> int:
    return 1 + _depth(value[0]) if isinstance(value, list | tuple) and value else 0


def as_tensor(value: Any, dtype: torch.dtype | None = None) -> Any:
    """Arrays and lists of numbers as tensors; anything else as it is.

    Args:
        value: what was given.
        dtype: of floating-point arrays; by default torch's default. Tensors keep their own.

    Raises:
        DataError: an array holds something else than numbers.
    """
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value  # as it is, it could not be differentiated
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
    tensor = torch.tensor(array)
    return tensor.to(dtype or torch.get_default_dtype()) if array.dtype == np.float64 else tensor


def as_tensors(value: Any, dtype: torch.dtype | None = None) -> Any:
    """The same with every array within dicts, lists and tuples as a tensor."""

    def each(leaf: Any) -> Any:
        if isinstance(leaf, ExampleList):
            return ExampleList(as_tensors(entry, dtype) for entry in leaf)
        return as_tensor(leaf, dtype)

    return pytree.tree_map(each, value, is_leaf=lambda node: are_numbers(node) or has_numbers_alone(node))


def all_leaves(value: Any) -> list[Any]:
    """Whatever dicts, lists and tuples hold, that of lists by example too."""
    leaves = pytree.tree_leaves(value)
    return [part for leaf in leaves for part in (all_leaves(list(leaf)) if isinstance(leaf, ExampleList) else [leaf])]


def as_target(target: Any, size: int | None, dtype: torch.dtype | None = None) -> Any:
    """Targets with tensors in place of arrays and lists of numbers, and lists by example known as such.

    Args:
        target: as it was given.
        size: the number of examples.
        dtype: of floating-point arrays.
    """
    if isinstance(target, ExampleList):
        return as_tensors(target, dtype)
    if isinstance(target, Mapping):
        return {name: as_target(each, size, dtype) for name, each in target.items()}
    plain = as_tensor(target, dtype)
    if type(plain) not in (list, tuple):
        return plain
    if len(plain) == size and not all(_has_length(each, size) for each in plain):
        return as_tensors(ExampleList(plain), dtype)
    return type(plain)(as_target(each, size, dtype) for each in plain)


def _has_length(value: object, size: int) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim > 0 and value.shape[0] == size


def is_row(item: object) -> bool:
    """Whether an item is one example rather than a batch: its label is one number, or an input is a list of numbers."""
    if isinstance(item, Mapping):
        labelled = any(is_numeric(item[key]) for key in LABEL_KEYS if key in item)
        return labelled or any(isinstance(value, list) and are_numbers(value) for value in item.values())
    return isinstance(item, tuple | list) and len(item) == 2 and is_numeric(item[1]) and not is_numeric(item[0])


def is_table(data: object) -> bool:
    """Whether data are a data set of the library `datasets`, whose items are rows."""
    return hasattr(data, "column_names") and hasattr(data, "features") and hasattr(data, "__iter__")


def batches_of_rows(rows: Iterable[Any], batch_size: int, dtype: torch.dtype | None) -> Iterator[Any]:
    """Rows as batches of examples whose inputs have one shape, (inputs, target) or dicts."""
    alike: dict[str, list[Any]] = {}
    left_out: dict[str, None] = {}
    for row in rows:
        example = as_tensors(_with_one_label(row, left_out) if isinstance(row, Mapping) else row, dtype)
        piles = alike.setdefault(_shapes_of_inputs(example), [])
        piles.append(example)
    if left_out:
        warnings.warn(f"the columns {', '.join(left_out)} hold text, which no model takes; left out", stacklevel=4)
    for pile in alike.values():
        for start in range(0, len(pile), batch_size):
            yield collated(pile[start : start + batch_size])


def _with_one_label(row: Mapping[Any, Any], left_out: dict[str, None]) -> dict[str, Any]:
    """A row's numbers, its label under the name of `labels`; text is noted as left out."""
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


def collated(examples: Sequence[Any]) -> Any:
    """Examples side by side: stacked where they have one shape, else as a list by example."""
    first = examples[0]
    if all(isinstance(each, Tensor) and each.shape == first.shape for each in examples):
        return torch.stack(list(examples))
    if all(isinstance(each, Number | np.generic) for each in examples):
        return as_tensor(list(examples))
    if all(isinstance(each, Mapping) and each.keys() == first.keys() for each in examples):
        return {name: collated([each[name] for each in examples]) for name in first}
    if all(isinstance(each, tuple | list) and len(each) == len(first) for each in examples):
        return tuple(collated(column) for column in zip(*examples, strict=True))
    return None if all(each is None for each in examples) else ExampleList(examples)
