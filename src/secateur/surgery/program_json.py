"""Programs of modules in recipe.json; everything is checked before it is applied."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
import torch

from secateur.errors import StorageError
from secateur.files import Record
from secateur.files.records import Natural
from secateur.graph.module_program import (
    Constant,
    InputDevice,
    ModuleProgram,
    ProgramStep,
    StateRef,
    TrainingFlag,
    Value,
)
from secateur.utils.failure_text import failure_text

Name = Annotated[str, msgspec.Meta(max_length=1024)]
Decoded = TypeVar("Decoded")

OF_TORCH: Mapping[str, type] = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}


class SavedProgramStep(Record, frozen=True):
    """The fields of `ProgramStep`, with references written as dicts of one entry."""

    operator: Name
    is_call: bool
    args: Any
    kwargs: Any
    results: list[Name | None]
    dropped: list[Name]


class SavedModuleProgram(Record, frozen=True):
    """The fields of `ModuleProgram`, with references written as dicts of one entry."""

    inputs: Any
    steps: list[SavedProgramStep]
    output: Any
    shapes: dict[Name, list[Natural | None]]


def program_to_saved(program: ModuleProgram) -> SavedModuleProgram:
    """Convert a module's program to plain data."""
    steps = [
        SavedProgramStep(
            step.operator,
            step.is_call,
            _encode(step.args),
            _encode(dict(step.kwargs)),
            list(step.results),
            list(step.dropped),
        )
        for step in program.steps
    ]
    shapes = {name: list(lengths) for name, lengths in program.shapes.items()}
    return SavedModuleProgram(_encode(dict(program.inputs)), steps, _encode(program.output), shapes)


def _encode(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"tuple": [_encode(nested) for nested in value]}
    if isinstance(value, list):
        return [_encode(nested) for nested in value]
    if isinstance(value, dict):
        return {"dict": {key: _encode(nested) for key, nested in value.items()}}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    for name, kind in OF_TORCH.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    match value:
        case Value(name):
            return {"value": name}
        case StateRef(name):
            return {"state": name}
        case TrainingFlag():
            return {"training": None}
        case InputDevice():
            return {"device": None}
        case Constant(values, dtype):
            return {"constant": {"values": _encode(values), "dtype": dtype}}
    return value


def program_from_saved(saved: SavedModuleProgram) -> ModuleProgram:
    """Convert plain data of `program_to_saved` to a module's program.

    Raises:
        StorageError: it is none.
    """
    try:
        steps = tuple(
            ProgramStep(
                step.operator,
                step.is_call,
                _decode_as(tuple, step.args),
                _decode_as(dict, step.kwargs),
                tuple(step.results),
                tuple(step.dropped),
            )
            for step in saved.steps
        )
        shapes = {name: tuple(lengths) for name, lengths in saved.shapes.items()}
        return ModuleProgram(_decode_as(dict, saved.inputs), steps, _decode(saved.output), shapes)
    except (KeyError, TypeError, ValueError, AttributeError) as failure:
        raise StorageError(
            f"a module's program can't be read ({failure_text(failure)}); the recipe was altered"
        ) from failure


def _decode_as(kind: type[Decoded], written: Any) -> Decoded:
    value = _decode(written)
    if not isinstance(value, kind):
        raise TypeError(f"{written!r:.80} is no {kind.__name__}")
    return value


def _of_torch(kind: type) -> Callable[[Any], Any]:
    def find(name: Any) -> Any:
        """Return the member of torch with that name."""
        member = getattr(torch, str(name))
        if not isinstance(member, kind):
            raise TypeError(f"torch.{name} is no {kind.__name__}")
        return member

    return find


DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "tuple": lambda items: tuple(_decode(item) for item in items),
    "dict": lambda items: {str(key): _decode(item) for key, item in items.items()},
    "float": float,
    "value": Value,
    "state": StateRef,
    "training": lambda _: TrainingFlag(),
    "device": lambda _: InputDevice(),
    "constant": lambda fields: Constant(_decode(fields["values"]), str(fields["dtype"])),
    **{name: _of_torch(kind) for name, kind in OF_TORCH.items()},
}


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(nested) for nested in value]
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        return DECODERS[kind](content)
    return value
