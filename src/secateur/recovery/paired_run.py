"""The dense and the cut network run side by side, cell of examples by cell, from one operator to a later one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.data.model_inputs import input_error
from secateur.recovery.embedded import EmbeddedPrunedNetwork

Values = dict[Node, Any]
MEMORY = 1 << 30


@dataclass(frozen=True)
class _Stage:
    """How far a cell of examples has come in both networks, and what is needed from there on.

    Args:
        dense_at, cut_at: the positions of the operators that run next.
        dense, cut: the values.
    """

    dense_at: int
    dense: Values
    cut_at: int
    cut: Values

    @cached_property
    def bytes(self) -> int:
        leaves = pytree.tree_leaves([*self.dense.values(), *self.cut.values()])
        tensors = {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


class PairedExecution:
    """What lives in both networks before an operator, for every cell of the examples.

    Values that find no room in memory are made again from where there was room last, or from the inputs, so memory does
    not grow with the examples.

    Args:
        within: the cut network in the dense one's program.
        cells: the examples.
        memory: bytes that may be held.
    """

    def __init__(self, within: EmbeddedPrunedNetwork, cells: Sequence[Batch], memory: int = MEMORY) -> None:
        self.within, self.cells, self.memory = within, cells, memory
        self._held: dict[int, _Stage] = {}

    def before(self, node: Node) -> Iterator[tuple[int, Values, Values]]:
        """The number of each cell, and what the operators from this one on need, of the dense and the cut network."""
        position = self.within.network.program.position[node]
        return self._at(position, position)

    def beside(self, node: Node) -> Iterator[tuple[int, Values, Values]]:
        """The same, but that the dense network has run the operator already: its result is among the values."""
        position = self.within.network.program.position[node]
        return self._at(position + 1, position)

    def cut_before(self, node: Node) -> Iterator[Values]:
        """What the operators from this one on need of the cut network alone, cell by cell."""
        for _, _, cut in self._at(None, self.within.network.program.position[node]):
            yield cut

    def _at(self, dense_to: int | None, cut_to: int) -> Iterator[tuple[int, Values, Values]]:
        fixed, handlers = self.within.fixed(), self.within.handlers()
        for cell in range(len(self.cells)):
            stage = self._advanced(cell, dense_to, cut_to, fixed, handlers)
            yield cell, dict(stage.dense), dict(stage.cut)

    def reach(self, node: Node) -> None:
        """Run every cell up to an operator, as far as there is room to keep what lives there."""
        for _ in self.before(node):
            pass

    def outputs(self) -> Iterator[tuple[Any, Any]]:
        """The outputs of the dense and the cut network for every cell."""
        program = self.within.network.program
        for _, dense, cut in self.before(program.nodes[-1]):
            yield program.finish({**program.fixed(), **dense}), program.finish({**self.within.fixed(), **cut})

    def cut_outputs(self) -> Iterator[Any]:
        """The outputs of the cut network alone, for every cell."""
        program = self.within.network.program
        for cut in self.cut_before(program.nodes[-1]):
            yield program.finish({**self.within.fixed(), **cut})

    def forked(self, within: EmbeddedPrunedNetwork) -> "PairedExecution":
        """The same cells, to go on with another cut network, from where they have come if it agrees so far."""
        other = PairedExecution(within, self.cells, self.memory)
        agrees = within.first_cut
        other._held = {cell: stage for cell, stage in self._held.items() if stage.cut_at <= agrees}
        return other

    def _advanced(self, cell: int, dense_to: int | None, cut_to: int, fixed: Values, handlers: Any) -> _Stage:
        program = self.within.network.program
        stage = self._held.get(cell)
        if stage is None or stage.cut_at > cut_to or (dense_to is not None and stage.dense_at > dense_to):
            inputs = dict(program.bind(self.cells[cell]))
            stage = _Stage(program.first, inputs, program.first, inputs)
        own = program.fixed()
        try:
            dense_to = stage.dense_at if dense_to is None else dense_to
            alike = min(self.within.alike_until, dense_to, cut_to)
            if stage.cut_at == stage.dense_at < alike:  # both networks are the same so far
                both = self._run(stage.dense, own, stage.dense_at, alike, {})
                stage = _Stage(alike, both, alike, both)
            dense = self._run(stage.dense, own, stage.dense_at, dense_to, {})
            cut = self._run(stage.cut, fixed, stage.cut_at, cut_to, handlers)
        except Exception as failure:  # operators raise many types on inputs of a wrong shape or type
            raise input_error(self.within.network.title, self.cells[cell], failure) from failure
        stage = _Stage(dense_to, dense, cut_to, cut)
        others = sum(each.bytes for number, each in self._held.items() if number != cell)
        if others + stage.bytes <= self.memory:
            self._held[cell] = stage
        return stage

    def _run(self, values: Values, fixed: Values, start: int, stop: int, handlers: Any) -> Values:
        program = self.within.network.program
        if start >= stop:
            return values
        found = program.run({**fixed, **values}, start, stop, handlers, keep=program.output_nodes)
        return {node: value for node, value in found.items() if node not in fixed}


def value_of(values: Values, fixed: Values, argument: Any) -> Any:
    """What an operator's argument is."""
    return torch.fx.map_arg(argument, lambda node: values[node] if node in values else fixed[node])
