"""The operators of two exports of one model, paired although one keeps slices and paddings that change nothing."""

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch.fx import Node

from secateur.graph.export_operators import OPTIONAL
from secateur.graph.program import Program


class PairedOperators:
    """Pairs the operators of two exports in their order.

    Args:
        program: an export, which may have slices and paddings that the other lacks.
        other: another export of the same model.
        copies: names of operators of the first that pass their input on.
    """

    def __init__(self, program: Program, other: Program, copies: Collection[str]) -> None:
        self.program, self.other, self.copies = program, other, copies
        self._partners: dict[Node, Any] = {}  # of operators, and of inputs and tensors that come before them
        self._read_by_other = _sources(other)
        self._read = _sources(program)

    def names(self) -> dict[str, str] | None:
        """Return the name of each operator's partner, None if some operator has none."""
        remaining = list(live_operators(self.other))[::-1]
        names: dict[str, str] = {}
        for node in live_operators(self.program):
            if node.name in self.copies:
                self._partners[node] = self._source(node.args[0])
            elif remaining and self._fits(node, remaining[-1]):
                partner = remaining.pop()
                names[node.name], self._partners[node] = partner.name, partner
            elif node.target in OPTIONAL:
                self._partners[node] = self._source(node.args[0])
            else:
                return None
        return None if remaining else names

    def _source(self, read: Any) -> Any:
        """Return the value of the other export that an operator of the first export reads."""
        return self._partners.get(read, self._read.get(read))

    def _fits(self, node: Node, other: Node) -> bool:
        if node.target != other.target:
            return False
        if node.target not in OPTIONAL:
            return True
        other_source = other.args[0]
        source = self._read_by_other.get(other_source, other_source)  # type: ignore[arg-type]
        is_slice = node.target is torch.ops.aten.slice.Tensor
        return self._source(node.args[0]) == source and (not is_slice or node.args[1:2] == other.args[1:2])


def _sources(program: Program) -> dict[Node, tuple[str, Any]]:
    """Map a program's placeholders to keys by which those of two exports can be compared."""
    inputs = {node: ("input", index) for index, node in enumerate(program.inputs)}
    states = {node: ("state", name) for node, name in program.state_names.items()}
    constants = {node: ("constant", index) for index, node in enumerate(program.constants)}
    return {**inputs, **states, **constants}


def live_operators(program: Program) -> Iterator[Node]:
    """Yield the operators on tensors that the outputs depend on, in order."""
    live, waiting = set(program.output_nodes), list(program.output_nodes)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in live:
                live.add(source)
                waiting.append(source)
    for node in program.nodes:
        if node in live and node.op == "call_function" and not isinstance(node.meta.get("val"), torch.SymInt):
            yield node
