"""Conversion of data, in the forms that users have, to batches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from secateur.data.batch import Batch, on_device
from secateur.data.batch_checks import advice_on_data, check_batch
from secateur.data.decoder_inputs import with_decoder_tokens
from secateur.data.forms import (
    ExampleList,
    as_target,
    as_tensors,
    batches_of_rows,
    is_array,
    is_data_set,
    is_row,
    is_table,
)
from secateur.data.next_tokens import with_next_tokens
from secateur.data.padding import without_padding
from secateur.data.reading import length_of, read_items, rows_of
from secateur.errors import DataError
from secateur.options import kind_text

BATCH_SIZE = 32  # of data sets that come without one


def as_batch(item: Any, dtype: torch.dtype | None = None) -> Batch:
    """Convert one item of the user's data to a batch: `(inputs, target)`, a dict of inputs, or inputs alone.

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
            f"a batch is {kind_text(item)} of {len(item)} items; give (inputs, target), where several inputs are "
            "one tuple or dict, such as ((a, b), target), or inputs alone"
        )
    args, kwargs = _inputs(item, dtype)
    labels = kwargs.pop("labels", None)  # `label` may be an input of the model, such as a generator's condition
    return replace(_with_target(args, kwargs, labels, dtype), has_labels=labels is not None)


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


def as_batches(
    data: Any,
    batch_size: int = BATCH_SIZE,
    dtype: torch.dtype | None = None,
    title: str = "",
    keeps_padding: bool = False,
    model: nn.Module | None = None,
) -> list[Batch]:
    """Convert data to batches, in order; rows with padding are batched without it, with others of their length.

    Args:
        data: any iterable of batches, or one batch: a tensor, a dict of tensors, or a pair of tensors (inputs, target);
            or single examples, which are collated by the shapes of their inputs: a `Dataset`, one of the library
            `datasets`, a list of dicts of numbers and lists, or of pairs (input, class number). Numpy arrays and lists
            of numbers are converted to tensors.
        batch_size: for single examples.
        dtype: of floating-point arrays; by default torch's default. Tensors keep their own.
        title: the name of the model's class; `labels` of a causal language model become the next tokens.
        keeps_padding: whether padded rows keep their padding, for programs, which run at one size.
        model: the model, which may make a decoder's tokens from labels; None if it is not known.

    Raises:
        DataError: there are no batches, or a batch is empty or contains NaN or infinity.
    """
    batches = [as_batch(item, dtype) for item in _batch_items(data, batch_size, dtype)]
    batches = _by_example_alike(batches)
    if not batches:
        raise DataError("data gave no batches; a generator that was used up gives none, so pass a list or a DataLoader")
    for number, batch in enumerate(batches):
        check_batch(batch, number)
    batches = with_decoder_tokens(model, batches)
    return with_next_tokens(batches if keeps_padding else without_padding(batches, batch_size, model), title)


def _batch_items(data: Any, batch_size: int, dtype: torch.dtype | None) -> list[Any]:
    """List the items of the data, each one batch in a form that `as_batch` accepts.

    Raises:
        DataError: the data are not iterable.
    """
    if isinstance(data, Mapping) and any(is_table(split) for split in data.values()):
        raise DataError(f"data is {kind_text(data)} of {', '.join(map(str, data))}; give one of these")
    if isinstance(data, Mapping) and _are_columns(data):
        data = [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]
        return list(batches_of_rows(data, batch_size, dtype))
    if isinstance(data, Batch | Tensor | np.ndarray | Mapping) or _is_pair_of_arrays(data):
        return [data]
    if is_table(data):
        return list(batches_of_rows(data, batch_size, dtype))
    if is_data_set(data):
        return list(batches_of_rows(read_items(rows_of(data), length_of(data)), batch_size, dtype))
    if not isinstance(data, Iterable) or isinstance(data, str | bytes) or hasattr(data, "to_numpy"):
        raise DataError(f"data is {kind_text(data)}; {advice_on_data(data)}")
    items = list(data) if isinstance(data, list | tuple) else read_items(data, length_of(data))
    return list(batches_of_rows(items, batch_size, dtype)) if items and all(map(is_row, items)) else items


def _is_pair_of_arrays(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and all(isinstance(item, Tensor | np.ndarray) for item in data)


def _are_columns(data: Mapping[Any, Any]) -> bool:
    """Return whether a dict holds lists of one length, with one entry per example."""
    columns = list(data.values())
    if not all(isinstance(column, list) and column and not isinstance(column[0], Tensor) for column in columns):
        return False
    return len({len(column) for column in columns}) == 1


def _by_example_alike(batches: Sequence[Batch]) -> list[Batch]:
    """Interpret lists of targets alike in all batches: if one has an entry per example, all have."""
    if not any(isinstance(batch.target, ExampleList) for batch in batches):
        return list(batches)
    return [
        replace(batch, target=ExampleList(batch.target))
        if isinstance(batch.target, list | tuple) and len(batch.target) == batch.size
        else batch
        for batch in batches
    ]


def example_batches(
    example: Any, device: torch.device, dtype: torch.dtype | None = None, model: nn.Module | None = None
) -> list[Batch]:
    """Return the batches to trace with: two examples, then the example as given, for models that reject two.

    Args:
        example: the model's input, a tuple of its inputs, a dict of them, or batches as `as_batches` takes them.
        device: where the model is.
        dtype: of floating-point arrays; by default torch's default.
        model: the model, which may make inputs from labels; by default the labels are left out.
    """
    if isinstance(example, Tensor | np.ndarray | Mapping | tuple):
        args, kwargs = _inputs(example, dtype)
        labels = kwargs.pop("labels", None)
        check_batch(Batch(args, kwargs), 0)
        (whole_batch,) = with_decoder_tokens(model, [Batch(args, kwargs, labels)])
    else:
        whole_batch = as_batches(example, dtype=dtype, model=model)[0]
    whole_batch = on_device(Batch(whole_batch.args, whole_batch.kwargs), device)
    size = whole_batch.size
    if not whole_batch.is_divisible:
        return [whole_batch]
    pair = whole_batch.map(lambda tensor: torch.cat([tensor, tensor]) if size == 1 else tensor[:2])
    return [pair] if size == 2 else [pair, whole_batch]
