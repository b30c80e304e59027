"""The numbers of two exports of one model at different sizes, matched operator by operator.

Units, consumers and taps refer to operators of the first export. Another export is therefore never run itself: its
numbers are put into the calls of the first one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.graph.export_operators import (
    OPTIONAL,
    gives_tensors,
    is_numeric_node,
    is_plain_number,
    keyword_argument,
    positional_arguments,
)
from secateur.graph.program import Program
from secateur.graph.resized_calls import Inserted, ResizedCalls
from secateur.graph.settled_numbers import MismatchError, Number, SettledNumbers, computed_numbers

MULTIPLES = (1, 2, 3)  # of the batch size, at which numbers that grow with it are compared


class Matching:
    """The operators of two exports, paired in order.

    Args:
        first: the program to whose operators units and consumers refer.
        other: another export of the same model.

    Raises:
        MismatchError: they are not the same, but for numbers and constants.
    """

    def __init__(self, first: Program, other: Program) -> None:
        self.first, self.other = first, other
        self._counterparts: dict[Node, Node | Inserted] = {}  # nodes of the other export -> values of the first
        self._originals: dict[Node, Node] = {}  # nodes of the first export -> those of the other
        self._skipped: dict[Node, Node] = {}  # what changes nothing at the other sizes -> what it reads
        self._constants: dict[Node, Tensor] = {}
        self._calls: dict[Node, tuple[list[Any], dict[str, Any]]] = {}
        self._pair_placeholders()
        self._pair_operators(*([node for node in program.nodes if gives_tensors(node)] for program in (first, other)))
        outputs = self._merge(list(first.outputs), list(other.outputs))
        if any(isinstance(change, Inserted) or change.first != change.other for change in _changed_values(outputs)):
            raise MismatchError("it returns a size, or pads what it returns")

    def at(self, leaves: Sequence[Any]) -> ResizedCalls:
        """Return the calls for a batch's inputs.

        Raises:
            MismatchError: a number depends on the batch size in another way.
        """
        sizes = self.other.shapes.sizes(leaves)
        batch_symbol = self.other.shapes.batched if self.first.batched is not None else None
        points = [sizes]
        if batch_symbol is not None:
            points = [{**sizes, batch_symbol: sizes[batch_symbol] * factor} for factor in MULTIPLES]
        numbers = SettledNumbers(points, [computed_numbers(self.first, self._originals, point) for point in points])
        calls = {}
        for node, (args, kwargs) in self._calls.items():
            call = tuple(map(numbers.settle, args)), {name: numbers.settle(v) for name, v in kwargs.items()}
            if call != (node.args, dict(node.kwargs)):
                calls[node] = call
        _check_layers(calls)
        return ResizedCalls(calls, self._constants)

    def _pair_placeholders(self) -> None:
        nodes_by_name = {name: node for node, name in self.first.state_names.items()}
        for node, name in self.other.state_names.items():
            if name not in nodes_by_name or self.first.state(name).shape != self.other.state(name).shape:
                raise MismatchError(f"{name} is not the same tensor any more")
            self._set_pair(nodes_by_name[name], node)
        for node, other in zip(self.first.inputs, self.other.inputs, strict=True):
            self._set_pair(node, other)

    def _set_pair(self, node: Node, other: Node) -> None:
        self._counterparts[other], self._originals[node] = node, other

    def _pair_operators(self, firsts: Sequence[Node], others: Sequence[Node]) -> None:
        """Pair operators in order; padding and slices that change nothing may be missing in either export."""
        unpaired, unpaired_others = list(reversed(firsts)), list(reversed(others))
        while unpaired or unpaired_others:
            node, other = unpaired[-1] if unpaired else None, unpaired_others[-1] if unpaired_others else None
            if node is not None and other is not None and self._may_pair(node, other):
                self._pair(unpaired.pop(), unpaired_others.pop())
            elif other is not None and other.target in OPTIONAL and not self._is_behind(other, node):
                self._insert(unpaired_others.pop())
            elif node is not None and node.target in OPTIONAL:
                self._leave_unchanged(unpaired.pop())
            else:
                names = [getattr(partner, "target", "nothing") for partner in (other, node)]
                raise MismatchError(f"it calls {names[0]} there where it calls {names[1]} here")

    def _may_pair(self, node: Node, other: Node) -> bool:
        """Return whether two nodes call the same operator; optional ones must also read the same value."""
        if node.target != other.target or node.op != other.op:
            return False
        source, other_source = node.args[0], other.args[0]
        if node.target not in OPTIONAL or (source in self.first.constants and other_source in self.other.constants):
            return True
        return self._root(self._counterpart_of_source(other)) is self._root(source)

    def _is_behind(self, other: Node, node: Node | None) -> bool:
        """Return whether an optional operator reads a value that is computed after the first export's."""
        if node is None or node.target not in OPTIONAL:
            return False
        position = self.first.position
        return position[self._root(self._counterpart_of_source(other))] > position[self._root(node.args[0])]

    def _counterpart_of_source(self, other: Node) -> Any:
        """Return the value of the first export that an operator of the other export reads."""
        source = self._counterparts.get(other.args[0])  # type: ignore[arg-type]
        if source is None:
            raise MismatchError(f"{other.name} reads what is not in the first export")
        return source

    def _root(self, value: Any) -> Node:
        """Return the node whose value it is, apart from operators that one export lacks."""
        node: Node = value.source if isinstance(value, Inserted) else value
        while node in self._skipped:
            node = self._skipped[node]
        return node

    def _insert(self, other: Node) -> None:
        """Insert an operator of the other export that changes nothing into the first export."""

        def translate(value: Any) -> Any:
            if isinstance(value, Node) and not is_numeric_node(value):
                return self._counterparts[value]
            if isinstance(value, list | tuple):
                return type(value)(translate(nested) for nested in value)
            return Number(None, value) if is_numeric_node(value) else value

        self._counterpart_of_source(other)
        args = tuple(translate(value) for value in other.args)
        self._counterparts[other] = Inserted(
            other.target, args, {name: translate(v) for name, v in other.kwargs.items()}
        )

    def _leave_unchanged(self, node: Node) -> None:
        """Make an operator of the first export change nothing, as the other export lacks it."""
        source = node.args[0]
        assert isinstance(source, Node)
        self._skipped[node] = source
        self._originals[node] = self._originals[source]
        self._calls[node] = [source, *OPTIONAL[node.target](node)], {}

    def _pair(self, node: Node, other: Node) -> None:
        if node.op == "get_attr" and self._code_of(self.first, node) != self._code_of(self.other, other):
            raise MismatchError(f"{node.target} is another there")
        length = max(len(node.args), len(other.args))
        args = self._merge(positional_arguments(node, length), positional_arguments(other, length))
        kwargs = {
            name: self._merge(keyword_argument(node, name), keyword_argument(other, name))
            for name in {**node.kwargs, **other.kwargs}
        }  # fmt: skip
        self._set_pair(node, other)
        if any(True for _ in _changed_values([args, *kwargs.values()])):
            self._calls[node] = args, kwargs

    def _merge(self, value: Any, other: Any) -> Any:
        """Merge a pair of arguments, with a `Number` wherever both are numbers or computed."""
        if is_numeric_node(value) and is_numeric_node(other):
            return (
                Number(value, other)
                if not is_plain_number(value) or not is_plain_number(other) or value != other
                else value
            )
        if isinstance(value, Node) and isinstance(other, Node):
            return self._value_read(value, other)
        if isinstance(value, list | tuple) and isinstance(other, list | tuple) and len(value) == len(other):
            return type(value)(self._merge(a, b) for a, b in zip(value, other, strict=True))
        if type(value) is not type(other) or value != other:
            raise MismatchError(f"an operator is called with {other!r} there where it is called with {value!r} here")
        return value

    def _value_read(self, node: Node, other: Node) -> Node | Inserted:
        """Return the value that an operator reads, in the first export.

        Raises:
            MismatchError: the other export's reads something else.
        """
        constants = self.first.constants, self.other.constants
        if node in constants[0] and other in constants[1] and other not in self._counterparts:
            self._set_pair(node, other)
            tensors = constants[0][node], constants[1][other]
            if not isinstance(tensors[0], Tensor) or not isinstance(tensors[1], Tensor):
                raise MismatchError(f"{node.name} is a constant that is no tensor")
            if tensors[0].shape != tensors[1].shape or not torch.equal(*tensors):
                self._constants[node] = tensors[1]
        value = self._counterparts.get(other)
        if value is None or self._root(value) is not self._root(node):
            raise MismatchError(f"an operator reads {other.name} there where it reads {node.name} here")
        return value if isinstance(value, Inserted) else node

    @staticmethod
    def _code_of(program: Program, node: Node) -> str:
        target = getattr(program.exported.graph_module, str(node.target))
        return str(getattr(target, "code", target))


def _check_layers(calls: Mapping[Node, Any]) -> None:
    """Check that no convolution has arguments that depend on the size of its input.

    Raises:
        MismatchError: a convolution is another, which is read from the first export in many places.
    """
    for node in calls:
        if "conv" in str(node.target):
            raise MismatchError(f"the stride, padding or dilation of {node.name} depends on the size of its input")


def _changed_values(tree: Any) -> Iterator[Any]:
    """Yield the numbers and inserted operators among arguments."""
    if isinstance(tree, Number | Inserted):
        yield tree
    elif isinstance(tree, list | tuple):
        for nested in tree:
            yield from _changed_values(nested)
