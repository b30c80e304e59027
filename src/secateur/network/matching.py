"""Two exports of one model at different sizes, operator by operator: which numbers stand for which.

The first export's operators are what everything else hangs on (units, readers, sites), so another export is never run
itself: its numbers are put into the calls of the first one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.network.input_shapes import Sizes, evaluated
from secateur.network.program import Program

MULTIPLES = (1, 2, 3)  # of the batch size, at which numbers that grow with it are compared


class MismatchError(Exception):
    """The two exports do not have the same operators."""


@dataclass(frozen=True)
class Number:
    """A number, or an operator that computes one, in the same place of two calls.

    Args:
        first, other: of the first export and of the other.
    """

    first: Any
    other: Any


@dataclass(frozen=True)
class Scaled:
    """A number that the first export computes from the batch, times a fraction."""

    node: Node
    numerator: int
    denominator: int

    def value(self, values: Mapping[Node, Any]) -> int:
        return int(values[self.node] * self.numerator // self.denominator)


@dataclass(frozen=True)
class ResizedCalls:
    """The arguments of a program's operators for inputs of other sizes.

    Args:
        calls: of the operators that are called with other numbers; nodes are those of the program.
        constants: by placeholder.
    """

    calls: Mapping[Node, tuple[tuple[Any, ...], dict[str, Any]]]
    constants: Mapping[Node, Tensor]

    def of(self, node: Node, values: Mapping[Node, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """One operator's arguments, from the values of the nodes."""
        args, kwargs = self.calls.get(node, (node.args, node.kwargs))
        return (
            tuple(self._resolved(value, values) for value in args),
            {name: self._resolved(value, values) for name, value in kwargs.items()},
        )

    def _resolved(self, value: Any, values: Mapping[Node, Any]) -> Any:
        if isinstance(value, Node):
            return self.constants[value] if value in self.constants else values[value]
        if isinstance(value, Scaled):
            return value.value(values)
        if isinstance(value, list | tuple):
            return type(value)(self._resolved(part, values) for part in value)
        return value


class Matching:
    """The operators of two exports, paired in their order.

    Args:
        first: the program that everything hangs on.
        other: another export of the same model.

    Raises:
        MismatchError: they are not the same, but for numbers and constants.
    """

    def __init__(self, first: Program, other: Program) -> None:
        self.first, self.other = first, other
        self._own: dict[Node, Node] = {}  # nodes of the other export -> those of the first
        self._constants: dict[Node, Tensor] = {}
        self._calls: dict[Node, tuple[list[Any], dict[str, Any]]] = {}
        self._pair_placeholders()
        operators = [[node for node in each.nodes if _is_operator(node)] for each in (first, other)]
        for node, others in zip(*operators, strict=False):
            self._pair(node, others)
        if len(operators[0]) != len(operators[1]):
            raise MismatchError(f"it has {len(operators[1])} operators there and {len(operators[0])} here")
        outputs = self._tree(list(first.outputs), list(other.outputs))
        if any(number.first != number.other for number in _numbers(outputs)):
            raise MismatchError("it returns a size")

    def at(self, leaves: Sequence[Any]) -> ResizedCalls:
        """The calls for a batch's inputs.

        Raises:
            MismatchError: a number depends on the batch size in another way.
        """
        sizes = self.other.shapes.sizes(leaves)
        batched = self.other.shapes.batched if self.first.batched is not None else None
        points = [{**sizes, batched: sizes[batched] * n} for n in MULTIPLES] if batched is not None else [sizes]
        computed = [self._computed(point) for point in points]

        def settled(value: Any) -> Any:
            if isinstance(value, Number):
                return _settled(value, points, computed)
            if isinstance(value, list | tuple):
                return type(value)(settled(part) for part in value)
            return value

        calls = {}
        for node, (args, kwargs) in self._calls.items():
            call = tuple(settled(value) for value in args), {name: settled(v) for name, v in kwargs.items()}
            if call != (node.args, dict(node.kwargs)):
                calls[node] = call
        _check_layers(calls)
        return ResizedCalls(calls, self._constants)

    def _pair_placeholders(self) -> None:
        named = {name: node for node, name in self.first.state_names.items()}
        for node, name in self.other.state_names.items():
            if name not in named or self.first.state(name).shape != self.other.state(name).shape:
                raise MismatchError(f"{name} is not the same tensor any more")
            self._own[node] = named[name]
        self._own |= dict(zip(self.other.inputs, self.first.inputs, strict=True))

    def _pair(self, node: Node, other: Node) -> None:
        if node.op != other.op or node.target != other.target:
            raise MismatchError(f"it calls {other.target} there where it calls {node.target} here")
        if node.op == "get_attr" and self._code(self.first, node) != self._code(self.other, other):
            raise MismatchError(f"{node.target} is another there")
        length = max(len(node.args), len(other.args))
        args = self._tree(_positional(node, length), _positional(other, length))
        kwargs = {
            name: self._tree(_keyword(node, name), _keyword(other, name))
            for name in {**node.kwargs, **other.kwargs}
        }  # fmt: skip
        self._own[other] = node
        if any(True for _ in _numbers([args, *kwargs.values()])):
            self._calls[node] = args, kwargs

    def _tree(self, value: Any, other: Any) -> Any:
        """A pair of arguments as one, with a `Number` wherever both are numbers or computed."""
        if _is_number(value) and _is_number(other):
            return Number(value, other) if not _is_plain(value) or not _is_plain(other) or value != other else value
        if isinstance(value, Node) and isinstance(other, Node):
            self._check_same(value, other)
            return value
        if isinstance(value, list | tuple) and isinstance(other, list | tuple) and len(value) == len(other):
            return type(value)(self._tree(a, b) for a, b in zip(value, other, strict=True))
        if type(value) is not type(other) or value != other:
            raise MismatchError(f"an operator is called with {other!r} there where it is called with {value!r} here")
        return value

    def _check_same(self, node: Node, other: Node) -> None:
        constants = self.first.constants, self.other.constants
        if node in constants[0] and other in constants[1] and other not in self._own:
            self._own[other] = node
            tensors = constants[0][node], constants[1][other]
            if not isinstance(tensors[0], Tensor) or not isinstance(tensors[1], Tensor):
                raise MismatchError(f"{node.name} is a constant that is no tensor")
            if tensors[0].shape != tensors[1].shape or not torch.equal(*tensors):
                self._constants[node] = tensors[1]
        if self._own.get(other) is not node:
            raise MismatchError(f"an operator reads {other.name} there where it reads {node.name} here")

    @staticmethod
    def _code(program: Program, node: Node) -> str:
        held = getattr(program.exported.graph_module, str(node.target))
        return str(getattr(held, "code", held))

    def _computed(self, sizes: Sizes) -> dict[Node, Any]:
        """What the first export's operators on numbers give at sizes of the other."""
        values: dict[Node, Any] = {}
        originals = {own: other for other, own in self._own.items()}
        for node in self.first.nodes:
            if node.op != "call_function" or _is_operator(node):
                continue
            if node.target is torch.ops.aten.sym_size.int:
                source, axis = node.args
                values[node] = evaluated(originals[source].meta["val"].shape[axis], sizes)  # type: ignore[index]
            elif all(used in values for used in node.all_input_nodes) and callable(node.target):
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)
        return values


def _settled(number: Number, points: Sequence[Sizes], computed: Sequence[Mapping[Node, Any]]) -> Any:
    """What to write in the place of a number of the first export.

    Raises:
        MismatchError: there is no such thing.
    """
    first, other = number.first, number.other
    wanted = [evaluated(other.meta["val"] if isinstance(other, Node) else other, point) for point in points]
    if not isinstance(first, Node):
        if any(value != wanted[0] for value in wanted):
            raise MismatchError(f"{first} there depends on the batch size")
        return first if wanted[0] == first else wanted[0]
    found = [values.get(first) for values in computed]
    if found == wanted:
        return first
    if all(value == wanted[0] for value in wanted):
        return wanted[0]
    if not all(isinstance(value, int) and value for value in (*wanted, *found)):
        raise MismatchError(f"{first.name} is no count of entries")
    numerator, denominator = int(wanted[0]), int(found[0] or 1)
    if any(a * denominator != (b or 0) * numerator for a, b in zip(wanted, found, strict=True)):
        raise MismatchError(f"{first.name} depends on the batch size in another way")
    return Scaled(first, numerator, denominator)


def _check_layers(calls: Mapping[Node, Any]) -> None:
    """
    Raises:
        MismatchError: a convolution is another, which is read from the first export in many places.
    """
    for node in calls:
        if "conv" in str(node.target):
            raise MismatchError(f"the stride, padding or dilation of {node.name} depends on the size of its input")


def _is_operator(node: Node) -> bool:
    """Whether it gives tensors, and not numbers or nothing."""
    if node.op == "get_attr":
        return True
    return node.op == "call_function" and not _gives_numbers(node)


def _gives_numbers(node: Node) -> bool:
    value = node.meta.get("val")
    if value is None:
        return "assert" in node.name or "sym_constrain" in node.name
    return isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool | int | float | bool)


def _is_number(value: Any) -> bool:
    return _is_plain(value) or (isinstance(value, Node) and value.op == "call_function" and _gives_numbers(value))


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(tree: Any) -> Iterator[Number]:
    if isinstance(tree, Number):
        yield tree
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from _numbers(part)


def _positional(node: Node, length: int) -> list[Any]:
    """The first arguments of a call, defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    further = [] if schema is None else [arg.default_value for arg in schema.arguments[len(node.args) : length]]
    return [*node.args, *further]


def _keyword(node: Node, name: str) -> Any:
    """A keyword argument of a call, or its default."""
    schema = getattr(node.target, "_schema", None)
    defaults = {} if schema is None else {arg.name: arg.default_value for arg in schema.arguments}
    return node.kwargs.get(name, defaults.get(name))
