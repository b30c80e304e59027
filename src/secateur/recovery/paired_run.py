"""Paired execution: the dense and the cut network run side by side, microbatch by microbatch, up to any operator."""

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
    """The progress of a microbatch in both networks, and the values that later operators read.

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
        """The bytes of the values."""
        leaves = pytree.tree_leaves([*self.dense.values(), *self.cut.values()])
        tensors = {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


class PairedExecution:
    """The values of both networks before an operator, for every microbatch.

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
        """Yield each microbatch's index, and the values that operators from this one on read, of both networks."""
        position = self.within.network.program.position[node]
        return self._at(position, position)

    def beside(self, node: Node) -> Iterator[tuple[int, Values, Values]]:
        """Yield the same after the dense network has run the operator."""
        position = self.within.network.program.position[node]
        return self._at(position + 1, position)

    def cut_before(self, node: Node) -> Iterator[Values]:
        """Yield the values that operators from this one on read, of the cut network alone."""
        for _, _, cut in self._at(None, self.within.network.program.position[node]):
            yield cut

    def _at(self, dense_to: int | None, cut_to: int) -> Iterator[tuple[int, Values, Values]]:
        fixed, handlers = self.within.fixed(), self.within.handlers()
        for cell in range(len(self.cells)):
            stage = self._advanced(cell, dense_to, cut_to, fixed, handlers)
            yield cell, dict(stage.dense), dict(stage.cut)

    def reach(self, node: Node) -> None:
        """Run every microbatch up to an operator, as far as memory allows keeping its values."""
        for _ in self.before(node):
            pass

    def outputs(self) -> Iterator[tuple[Any, Any]]:
        """Yield the outputs of the dense and the cut network for every microbatch."""
        program = self.within.network.program
        for _, dense, cut in self.before(program.nodes[-1]):
            yield program.finish({**program.fixed(), **dense}), program.finish({**self.within.fixed(), **cut})

    def cut_outputs(self) -> Iterator[Any]:
        """Yield the outputs of the cut network for every microbatch."""
        program = self.within.network.program
        for cut in self.cut_before(program.nodes[-1]):
            yield program.finish({**self.within.fixed(), **cut})

    def forked(self, within: EmbeddedPrunedNetwork) -> "PairedExecution":
        """Return an execution of the same microbatches with another cut network, from the values that both share."""
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
        dense_fixed = program.fixed()
        try:
            dense_to = stage.dense_at if dense_to is None else dense_to
            shared_until = min(self.within.alike_until, dense_to, cut_to)
            if stage.cut_at == stage.dense_at < shared_until:  # both networks are the same so far
                both = self._run(stage.dense, dense_fixed, stage.dense_at, shared_until, {})
                stage = _Stage(shared_until, both, shared_until, both)
            dense = self._run(stage.dense, dense_fixed, stage.dense_at, dense_to, {})
            cut = self._run(stage.cut, fixed, stage.cut_at, cut_to, handlers)
        except Exception as failure:  # operators raise many types on inputs of a wrong shape or type
            raise input_error(self.within.network.title, self.cells[cell], failure) from failure
        stage = _Stage(dense_to, dense, cut_to, cut)
        others = sum(stage_of_cell.bytes for number, stage_of_cell in self._held.items() if number != cell)
        if others + stage.bytes <= self.memory:
            self._held[cell] = stage
        return stage

    def _run(self, values: Values, fixed: Values, start: int, stop: int, handlers: Any) -> Values:
        program = self.within.network.program
        if start >= stop:
            return values
        results = program.run({**fixed, **values}, start, stop, handlers, keep=program.output_nodes)
        return {node: value for node, value in results.items() if node not in fixed}


def value_of(values: Values, fixed: Values, argument: Any) -> Any:
    """Return the value of an operator's argument."""
    return torch.fx.map_arg(argument, lambda node: values[node] if node in values else fixed[node])
