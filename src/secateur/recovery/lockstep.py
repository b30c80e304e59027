"""The dense and the cut network run side by side, cell of examples by cell, from one operator to a later one."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.data import Batch, refusal
from secateur.recovery.within import Within

Values = dict[Node, Any]
MEMORY = 1 << 30


class Lockstep:
    """What lives in both networks before an operator, for every cell of the examples.

    Values that find no room in memory are made again from the inputs, so memory does not grow with the examples.

    Args:
        within: the cut network in the dense one's program.
        cells: the examples.
        memory: bytes that may be held.
    """

    def __init__(self, within: Within, cells: Sequence[Batch], memory: int = MEMORY) -> None:
        self.within, self.cells, self.memory = within, cells, memory
        self._held: dict[int, tuple[int, Values, Values, int]] = {}

    def before(self, node: Node) -> Iterator[tuple[int, Values, Values]]:
        """The number of each cell, and what the operators from this one on need, of the dense and the cut network."""
        position = self.within.network.program.position[node]
        fixed, handlers = self.within.fixed(), self.within.handlers()
        for cell in range(len(self.cells)):
            dense, cut = self._advanced(cell, position, fixed, handlers)
            yield cell, dense, cut

    def dense_result(self, node: Node, dense: Values, cell: int) -> Any:
        """What an operator of the dense network gives for a cell.

        Raises:
            DataError: it refuses the examples.
        """
        program = self.within.network.program
        args, kwargs = program.call_of(node, {**program.fixed(), **dense})
        try:
            return node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception as failure:
            raise refusal(self.within.network.title, self.cells[cell], failure) from failure

    def reach(self, node: Node) -> None:
        """Run every cell up to an operator, as far as there is room to keep what lives there."""
        for _ in self.before(node):
            pass

    def outputs(self) -> Iterator[tuple[Any, Any]]:
        """The outputs of the dense and the cut network for every cell."""
        program = self.within.network.program
        for _, dense, cut in self.before(program.nodes[-1]):
            yield program.finish({**program.fixed(), **dense}), program.finish({**self.within.fixed(), **cut})

    def forked(self, within: Within) -> "Lockstep":
        """The same cells, to go on with another cut network, from where they have come if it agrees so far."""
        other = Lockstep(within, self.cells, self.memory)
        agrees = within.first_cut
        held = {cell: each for cell, each in self._held.items() if each[0] <= agrees}
        other._held = {cell: (at, dict(a), dict(b), size) for cell, (at, a, b, size) in held.items()}
        return other

    def branched(self) -> "Lockstep":
        """The same networks and cells, to look ahead without leaving where this one is."""
        other = Lockstep(self.within, self.cells, self.memory)
        other._held = {cell: (at, dict(a), dict(b), size) for cell, (at, a, b, size) in self._held.items()}
        return other

    def _advanced(self, cell: int, position: int, fixed: Values, handlers: Any) -> tuple[Values, Values]:
        program = self.within.network.program
        start, dense, cut, _ = self._held.pop(cell, (None, {}, {}, 0))
        if start is None or start > position:
            start = program.first
            dense, cut = (dict(program.bind(self.cells[cell])) for _ in range(2))
        if start < position:
            own = program.fixed()
            try:
                dense = program.run({**own, **dense}, start, position, {}, keep=program.output_nodes)
                cut = program.run({**fixed, **cut}, start, position, handlers, keep=program.output_nodes)
            except Exception as failure:  # operators raise many types on inputs of a wrong shape or type
                raise refusal(self.within.network.title, self.cells[cell], failure) from failure
            dense, cut = ({node: value for node, value in values.items() if node not in own} for values in (dense, cut))
        size = _bytes(dense) + _bytes(cut)
        if sum(held for *_, held in self._held.values()) + size <= self.memory:
            self._held[cell] = position, dense, cut, size
        return dense, cut


def value_of(values: Values, fixed: Values, argument: Any) -> Any:
    """What an operator's argument is."""
    return torch.fx.map_arg(argument, lambda node: values[node] if node in values else fixed[node])


def _bytes(values: Values) -> int:
    leaves = pytree.tree_leaves(list(values.values()))
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor))
