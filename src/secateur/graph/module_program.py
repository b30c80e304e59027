"""The code of a module as a list of operators and calls of submodules: plain data that runs and can be saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch.utils import _pytree as pytree

from secateur.graph.module_operators import find_operator

Literals = Mapping[str, Mapping[str, Mapping[str, int]]]
Lengths = tuple[int | None, ...]
WHOLE = ""


@dataclass(frozen=True)
class Value:
    """The result of an earlier step, or an input, by its name."""

    name: str


@dataclass(frozen=True)
class StateRef:
    """A parameter, buffer or other tensor of the module, by its path within the module."""

    name: str


@dataclass(frozen=True)
class TrainingFlag:
    """The training mode of the module, which dropouts in its code read."""


@dataclass(frozen=True)
class InputDevice:
    """The device of the module's inputs."""


@dataclass(frozen=True)
class Constant:
    """A small tensor that the code creates from numbers.

    Args:
        values: nested lists of numbers.
        dtype: the name of its type, without `torch.`.
    """

    values: Any
    dtype: str


@dataclass(frozen=True)
class ProgramStep:
    """An operator, or the call of a submodule.

    Args:
        operator: "aten.pad.default", "operator.mul", or the path of a submodule.
        is_call: whether it is a call of a submodule.
        args: positional arguments, with references such as `Value` in place of tensors.
        kwargs: keyword arguments, likewise.
        results: the names of its results; of a call one for each leaf of its output, None for what is no tensor.
        dropped: the names of what no later step needs.
    """

    operator: str
    is_call: bool
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[str | None, ...]
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModuleProgram:
    """The code of a module for its call in a network.

    Args:
        inputs: its arguments by name, defaults filled in, with `Value` in place of tensors.
        steps: what it does.
        output: what it returns, with `Value` in place of tensors.
        shapes: of each tensor among the inputs its lengths, None for those that may be others.
    """

    inputs: Mapping[str, Any]
    steps: tuple[ProgramStep, ...]
    output: Any
    shapes: Mapping[str, Lengths] = field(default_factory=dict)

    @property
    def operators(self) -> dict[str, ProgramStep]:
        """The steps that are operators, by the names of their results."""
        return {str(step.results[0]): step for step in self.steps if not step.is_call}

    def with_literals(self, literals: Literals) -> "ModuleProgram":
        """Replace numbers, by operator, argument and position."""
        return replace(self, steps=tuple(_with_literals(step, literals) for step in self.steps))

    def __deepcopy__(self, memo: dict[int, Any]) -> "ModuleProgram":
        return self


def _with_literals(step: ProgramStep, literals: Literals) -> ProgramStep:
    changed_arguments = {} if step.is_call else literals.get(str(step.results[0]), {})
    for argument, positions in changed_arguments.items():
        step = _with_argument(step, argument, positions)
    return step


def _with_argument(step: ProgramStep, argument: str, positions: Mapping[str, int]) -> ProgramStep:
    position = argument_names(step.operator).index(argument)
    old_value = step.kwargs[argument] if argument in step.kwargs else step.args[position]
    if WHOLE in positions:
        value: Any = positions[WHOLE]
    else:
        value = [positions.get(str(position), number) for position, number in enumerate(old_value)]
    if argument in step.kwargs:
        return replace(step, kwargs={**step.kwargs, argument: value})
    return replace(step, args=(*step.args[:position], value, *step.args[position + 1 :]))


def argument_names(operator: str) -> list[str]:
    """Return the names of an operator's arguments."""
    return [argument.name for argument in find_operator(operator)._schema.arguments]


def common_lengths(one: Lengths, other: Sequence[int | None]) -> Lengths:
    """Return the lengths that two shapes have in common, None for others."""
    if len(one) != len(other):
        return ()
    return tuple(a if a == b else None for a, b in zip(one, other, strict=True))


def references(value: Any) -> list[str]:
    """Return the names of all values that arguments refer to."""
    return [leaf.name for leaf in pytree.tree_leaves(value, is_leaf=is_reference) if isinstance(leaf, Value)]


def referenced_states(value: Any) -> list[str]:
    """Return the names of all tensors of the module that arguments refer to."""
    return [leaf.name for leaf in pytree.tree_leaves(value, is_leaf=is_reference) if isinstance(leaf, StateRef)]


def is_reference(value: Any) -> bool:
    """Return whether an argument refers to a value, a tensor or a property of the module."""
    return isinstance(value, Value | StateRef | TrainingFlag | InputDevice | Constant)
