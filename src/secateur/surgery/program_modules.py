"""Modules that run a program of their code, in which cut shapes can be expressed.

The class of such a module is a subclass of its own: `isinstance` holds, and its submodules, parameters, buffers,
attributes and hooks are as they were.
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.errors import SurgeryError
from secateur.graph.call_recorder import arguments_by_name
from secateur.graph.module_operators import find_operator
from secateur.graph.module_program import (
    Constant,
    InputDevice,
    ModuleProgram,
    ProgramStep,
    StateRef,
    TrainingFlag,
    Value,
    is_reference,
)
from secateur.options import kind_text


class ProgramModule(nn.Module):
    """A module that runs a program instead of the code of its class.

    Args:
        module_program: the program.
    """

    module_program: ModuleProgram

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _empty, (original_class(type(self)),), self.__getstate__()  # type: ignore[no-untyped-call]


def _empty(kind: Any) -> nn.Module:
    module: nn.Module = object.__new__(program_class(kind))
    return module


def original_class(kind: type[nn.Module]) -> type[nn.Module]:
    """Return the class whose code a program replaces."""
    return kind.__bases__[1] if issubclass(kind, ProgramModule) else kind


@cache
def program_class(kind: Any) -> type[nn.Module]:
    """Create the subclass of a class that runs a program instead of its code."""

    @wraps(kind.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the program."""
        return run_program(self, self.module_program, args, kwargs)

    about = f"`{kind.__name__}` that runs a cut program in place of its own code, which can't say the cut shape."
    return type(
        f"Cut{kind.__name__}",
        (ProgramModule, kind),
        {"forward": forward, "__doc__": about, "__module__": kind.__module__},
    )


def run_as_program(module: Any, program: ModuleProgram) -> None:
    """Let a module run a program instead of its code, in place."""
    kind: Any = original_class(type(module))
    module.__class__ = program_class(kind)
    module.module_program = program


def run_program(
    module: nn.Module,
    program: ModuleProgram,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run the program of a module on a call's arguments.

    Raises:
        SurgeryError: the call is another than the one that was traced.
    """
    values = input_values(module, program, args, kwargs)
    device = next((value.device for value in values.values() if isinstance(value, Tensor)), torch.device("cpu"))
    for step in program.steps:
        _run_step(module, step, values, device)
    return _with_values(program.output, module, values, device)


def input_values(
    module: nn.Module, program: ModuleProgram, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Map the names of inputs in the program to the tensors and sizes among a call's arguments.

    Raises:
        SurgeryError: the call is another than the one that was traced.
    """
    signature = inspect.signature(original_class(type(module)).forward)
    call_arguments = arguments_by_name(signature, (module, *args), kwargs)
    del call_arguments[next(iter(signature.parameters))]
    values: dict[str, Any] = {}
    if call_arguments.keys() != program.inputs.keys():
        _refuse(module, f"arguments {sorted(call_arguments)} in place of {sorted(program.inputs)}")
    for name, input_form in program.inputs.items():
        _bind(module, name, input_form, call_arguments[name], values)
    for name, lengths in program.shapes.items():
        shape = values[name].shape
        if len(shape) != len(lengths) or any(b is not None and a != b for a, b in zip(shape, lengths, strict=True)):
            _refuse(module, f"an input has shape {_lengths_text(shape)} in place of {_lengths_text(lengths)}")
    return values


def _lengths_text(lengths: Sequence[Any]) -> str:
    return f"({', '.join('any' if length is None else str(length) for length in lengths)})"


def _bind(module: nn.Module, name: str, form: Any, argument: Any, values: dict[str, Any]) -> None:
    """Bind the tensors and sizes among the arguments to their names; all other values must be as recorded."""
    if isinstance(form, Value):
        if not isinstance(argument, Tensor | int | torch.SymInt) or isinstance(argument, bool):
            _refuse(module, f"{name} is {kind_text(argument)}")
        values[form.name] = argument
    elif isinstance(form, tuple | list):
        if not isinstance(argument, tuple | list) or len(argument) != len(form):
            _refuse(module, f"{name} is not a list of {len(form)}")
        for position, (nested, value) in enumerate(zip(form, argument, strict=True)):
            _bind(module, f"{name}[{position}]", nested, value, values)
    elif isinstance(form, dict):
        if not isinstance(argument, dict) or argument.keys() != form.keys():
            _refuse(module, f"{name} is not a dict of {sorted(form)}")
        for key, nested in form.items():
            _bind(module, f"{name}[{key!r}]", nested, argument[key], values)
    elif isinstance(argument, Tensor) or type(argument) is not type(form) or argument != form:
        description = f"a tensor of shape {tuple(argument.shape)}" if isinstance(argument, Tensor) else repr(argument)
        _refuse(module, f"{name} is {description} in place of {form!r}")


def _refuse(module: nn.Module, reason: str) -> None:
    kind = original_class(type(module)).__name__
    raise SurgeryError(
        f"this {kind} was cut as a program, for the call that it had when the network was traced, and can't be called "
        f"in another way: {reason}; call it as in the example that the network was traced with, or trace it with an "
        "example that calls it so"
    )


def _run_step(module: nn.Module, step: ProgramStep, values: dict[str, Any], device: torch.device) -> None:
    args = _with_values(step.args, module, values, device)
    kwargs = _with_values(step.kwargs, module, values, device)
    if step.is_call:
        result = module.get_submodule(step.operator)(*args, **kwargs)
        results = pytree.tree_leaves(result)
        if len(results) != len(step.results):
            raise SurgeryError(
                f"{step.operator} returned {len(results)} values where it returned {len(step.results)} when the "
                "network was traced; its output must have the same structure"
            )
    else:
        results = [find_operator(step.operator)(*args, **kwargs)]
    for name, value in zip(step.results, results, strict=True):
        if name is not None:
            values[name] = value
    for name in step.dropped:
        values.pop(name, None)


def _with_values(value: Any, module: nn.Module, values: Mapping[str, Any], device: torch.device) -> Any:
    """Replace the references in arguments by their values."""
    if not is_reference(value):
        if isinstance(value, tuple):
            return tuple(_with_values(nested, module, values, device) for nested in value)
        if isinstance(value, list):
            return [_with_values(nested, module, values, device) for nested in value]
        if isinstance(value, dict):
            return {key: _with_values(nested, module, values, device) for key, nested in value.items()}
        return value
    if isinstance(value, Value):
        return values[value.name]
    if isinstance(value, StateRef):
        path, _, name = value.name.rpartition(".")
        return getattr(module.get_submodule(path), name)
    if isinstance(value, TrainingFlag):
        return module.training
    if isinstance(value, Constant):
        return torch.tensor(value.values, dtype=getattr(torch, value.dtype), device=device)
    assert isinstance(value, InputDevice)
    return device
