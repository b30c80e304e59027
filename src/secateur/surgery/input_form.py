"""The form of a model's inputs as plain data, from which a fresh model can be exported.

The values in tensors are not kept: exporting runs on shapes alone.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor

from secateur.data.batch import Batch
from secateur.errors import StorageError
from secateur.files import Record
from secateur.files.records import Natural
from secateur.files.states import PlainValue
from secateur.options import kind_text

DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool, torch.complex64, torch.complex128,
    )
}  # fmt: skip
MOST_ELEMENTS = 1 << 28


class TensorForm(Record, frozen=True, tag="tensor"):
    """A tensor's shape and type."""

    shape: Annotated[list[Natural], msgspec.Meta(max_length=16)]
    dtype: str


class SequenceForm(Record, frozen=True, tag="sequence"):
    """A list or a tuple."""

    items: list["Form"]
    is_tuple: bool


class MappingForm(Record, frozen=True, tag="mapping"):
    """A dict with strings as keys."""

    items: dict[str, "Form"]


Form = TensorForm | PlainValue | SequenceForm | MappingForm


class InputForm(Record, frozen=True):
    """Positional and keyword inputs of a model."""

    args: list[Form]
    kwargs: dict[str, Form]


def input_form(batch: Batch) -> InputForm | None:
    """Return the form of a batch's inputs; None if it contains other objects."""
    try:
        return InputForm([_form(value) for value in batch.args], {k: _form(value) for k, value in batch.kwargs.items()})
    except TypeError:
        return None


def example_of(form: InputForm, device: torch.device) -> Batch:
    """Return a batch of this form; its tensors are zero.

    Raises:
        StorageError: a tensor is of no known type, or larger than an example can be.
    """
    args, kwargs = tuple(_value_of_form(item, device) for item in form.args), form.kwargs
    return Batch(args, {name: _value_of_form(item, device) for name, item in kwargs.items()})


def _form(value: Any) -> Form:
    if isinstance(value, Tensor):
        return TensorForm(list(value.shape), str(value.dtype).removeprefix("torch."))
    if value is None or type(value) in (bool, int, float, str):
        return PlainValue(value)
    if type(value) in (list, tuple):
        return SequenceForm([_form(item) for item in value], type(value) is tuple)
    if type(value) is dict and all(type(name) is str for name in value):
        return MappingForm({name: _form(item) for name, item in value.items()})
    raise TypeError(f"{kind_text(value)} can't be written down")


def _value_of_form(form: Form, device: torch.device) -> Any:
    if isinstance(form, TensorForm):
        if form.dtype not in DTYPES or math.prod(form.shape) > MOST_ELEMENTS:
            raise StorageError(f"an input of type {form.dtype} and shape {form.shape} is no example of a model's input")
        return torch.zeros(form.shape, dtype=DTYPES[form.dtype], device=device)
    if isinstance(form, PlainValue):
        return form.value
    if isinstance(form, SequenceForm):
        items = [_value_of_form(item, device) for item in form.items]
        return tuple(items) if form.is_tuple else items
    return {name: _value_of_form(item, device) for name, item in form.items.items()}
