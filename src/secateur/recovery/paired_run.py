"""Paired execution: the dense and the cut network run side by side, microbatch by microbatch, up to any operator."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.data.model_inputs import input_error
from secateur.evaluation.dense_outputs import compact_output, entry_count
from secateur.graph.cursor import ProgramCursor, RunState, Values, ValuesOver
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.embedded_state import FixedValues
from secateur.recovery.known_rows import KnownDenseRows

MEMORY = 1 << 30


class PairedExecution:
    """The values of both networks before an operator, for every microbatch.

    Args:
        cut_network: the cut network in the dense one's program.
        microbatches: the examples.
        memory: the number of bytes that may be kept.
        known: the dense network's values at the rows of quick refits, which other cut networks share; None where every
            refit reads values of its own.
    """

    def __init__(
        self,
        cut_network: EmbeddedPrunedNetwork,
        microbatches: Sequence[Batch],
        memory: int = MEMORY,
        known: KnownDenseRows | None = None,
    ) -> None:
        self.cut_network, self.microbatches, self.memory, self.known = cut_network, microbatches, memory, known
        self._cursor = ProgramCursor(cut_network.network.program, microbatches)

    def before(self, node: Node) -> Iterator[tuple[int, Values, Values]]:
        """Yield each microbatch's index, and the values that operators from this one on read, of both networks."""
        position = self.cut_network.network.program.position[node]
        return self._at(position, position)

    def beside(self, node: Node) -> Iterator[tuple[int, Values, Values]]:
        """Yield the same after the dense network has run the operator."""
        position = self.cut_network.network.program.position[node]
        return self._at(position + 1, position)

    def cut_before(self, node: Node) -> Iterator[Values]:
        """Yield the values that operators from this one on read, of the cut network alone."""
        for _, _, cut in self.cut_alone(node):
            yield cut

    def cut_alone(self, node: Node) -> Iterator[tuple[int, Values, Values]]:
        """Yield the same as `before`, the dense network's values from where it was before."""
        return self._at(None, self.cut_network.network.program.position[node])

    def _at(self, dense_to: int | None, cut_to: int) -> Iterator[tuple[int, Values, Values]]:
        handlers, fixed = self.cut_network.handlers(), dict[int, FixedValues]()
        dense_fixed = {} if dense_to is None else self.cut_network.network.program.fixed()
        for microbatch in range(len(self.microbatches)):
            dense, cut = self._advance(microbatch, dense_to, cut_to, handlers, dense_fixed, fixed)
            yield microbatch, dict(dense.values), dict(cut.values)

    def reach(self, node: Node) -> None:
        """Run every microbatch up to an operator, as far as memory allows keeping its values."""
        for _ in self.before(node):
            pass

    def outputs(self) -> Iterator[tuple[Any, Any]]:
        """Yield the outputs of the dense and the cut network for every microbatch."""
        program = self.cut_network.network.program
        for _, dense, cut in self.before(program.nodes[-1]):
            yield program.finish(ValuesOver(dense, program.fixed())), self._cut_output(cut)

    def cut_outputs(self) -> Iterator[Any]:
        """Yield the outputs of the cut network for every microbatch."""
        for cut in self.cut_before(self.cut_network.network.program.nodes[-1]):
            yield self._cut_output(cut)

    def _cut_output(self, cut: Values) -> Any:
        """Return the output of the cut network, from the values before the end."""
        program = self.cut_network.network.program
        return program.finish(ValuesOver(cut, self.cut_network.fixed(program.position[program.nodes[-1]])))

    def fork(self, cut_network: EmbeddedPrunedNetwork) -> "PairedExecution":
        """Return an execution of the same microbatches with another cut network, from the values that both share."""
        execution = PairedExecution(cut_network, self.microbatches, self.memory, self.known)
        agrees_until = cut_network.first_cut
        execution._cursor.keep_from(self._cursor, lambda states: states[1].position <= agrees_until)
        return execution

    def _advance(
        self,
        microbatch: int,
        dense_to: int | None,
        cut_to: int,
        handlers: Any,
        dense_fixed: Mapping[Node, Any],
        fixed: dict[int, FixedValues],
    ) -> tuple[RunState, RunState]:
        """Run both networks on a microbatch.

        Args:
            microbatch: the number of the microbatch.
            dense_to: the position before which the dense network stops; None: where it is.
            cut_to: the position before which the cut network stops.
            handlers: the overrides of operators in the cut network.
            dense_fixed: the parameters of the dense network; nothing where it stays where it is.
            fixed: the parameters of the cut network for runs from a position, which microbatches share.
        """
        dense, cut = self._cursor.start(microbatch, (dense_to, cut_to))
        dense_to = dense.position if dense_to is None else dense_to
        shared_until = min(self.cut_network.alike_until, dense_to, cut_to)
        advance = self._cursor.advance
        try:
            if cut.position == dense.position < shared_until:  # both networks are the same so far
                dense = cut = advance(dense, shared_until, dense_fixed)
            dense = advance(dense, dense_to, dense_fixed)
            if cut.position < cut_to:
                if cut.position not in fixed:
                    fixed[cut.position] = self.cut_network.fixed(cut.position)
                cut = advance(cut, cut_to, fixed[cut.position], handlers)
        except Exception as failure:  # operators raise many types on inputs of a wrong shape or type
            raise input_error(self.cut_network.network.title, self.microbatches[microbatch], failure) from failure
        self._cursor.keep(microbatch, (dense, cut), self.memory)
        return dense, cut


def dense_outputs(network: Network, microbatches: Sequence[Batch], most_entries: float = math.inf) -> list[Any]:
    """Run the dense network.

    Args:
        network: the network.
        microbatches: the examples.
        most_entries: the largest number of entries that all outputs may have together.

    Returns:
        The output for each microbatch; nothing if they are too large.
    """
    outputs, entries = list[Any](), 0
    for dense, _ in PairedExecution(EmbeddedPrunedNetwork.of_kept(network, {}), microbatches, memory=0).outputs():
        entries += entry_count(dense)
        if entries > most_entries:
            return []
        outputs.append(compact_output(dense))
    return outputs


def value_of(values: Values, fixed: Mapping[Node, Any], argument: Any) -> Any:
    """Return the value of an operator's argument."""
    return torch.fx.map_arg(argument, lambda node: values[node] if node in values else fixed[node])
