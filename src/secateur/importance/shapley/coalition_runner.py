"""Runs of a program from a cut on with some units absent: one coalition on a microbatch, or a stack of them.

The consumer at the cut may be computed as a sum of what each part of its input adds (`additive_layer.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.consumers import Consumer
from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.evaluation.losses import Reference
from secateur.graph.program import OpOverride
from secateur.importance.context import CriterionContext
from secateur.importance.shapley.additive_layer import additive_layer
from secateur.importance.shapley.batching import select_reference, select_rows
from secateur.importance.shapley.contribution_sums import ContributionSums
from secateur.importance.shapley.dense_run import DenseBaseline
from secateur.importance.shapley.precision import full_precision, raise_precision
from secateur.masking.ablation import consumer_key
from secateur.masking.straight_through import straight_through

MIN_ROWS = 8  # of an example, from which on the contributions of its parts are worth computing


def first_consumer(network: Network, consumers: Sequence[Consumer]) -> int:
    """Return the position of the first consumer in the program."""
    return min(network.program.position[consumer.node] for consumer in consumers)


@dataclass(frozen=True, eq=False)
class MicrobatchValues:
    """The dense network's values of a microbatch.

    Args:
        microbatch: the microbatch's number.
        dense: the dense network's losses and their reference.
        live: the values at the cut.
    """

    microbatch: int
    dense: DenseBaseline
    live: Mapping[Node, Any]


class CoalitionRunner:
    """The rest of a program behind the first consumer of some groups' units.

    Args:
        context: the network and the examples.
        groups: the groups whose units are the players, in this order.
        precision: the type of matrix products; None for the network's own.
    """

    def __init__(self, context: CriterionContext, groups: Sequence[Group], precision: torch.dtype | None) -> None:
        self.context, self.groups = context, tuple(groups)
        self.network, self.program = context.network, context.network.program
        consumers = [consumer for group in groups for consumer in self.network.consumers_of(group)]
        self.consumers: tuple[Consumer, ...] = tuple(dict.fromkeys(consumers))
        self.cut = first_consumer(self.network, self.consumers)
        self.end = len(self.program.nodes) - 1
        self.ablation = context.ablation
        self.precision = precision
        self._gradient_handlers = straight_through(self.program)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of players of each group."""
        return tuple(group.size for group in self.groups)

    @cached_property
    def required_nodes(self) -> tuple[Node, ...]:
        """Nodes before the cut whose values the rest of the program, or the output, needs."""
        constants = self.program.state_names.keys() | self.program.constants.keys()
        nodes_before = self.program.nodes[: self.cut]
        return tuple(node for node in nodes_before if self.program.last_use[node] >= self.cut and node not in constants)

    @cached_property
    def _fixed(self) -> dict[Node, Any]:
        """The parameters, buffers and constants that operators from the cut on read."""
        fixed_values = self.program.fixed()
        return {node: value for node, value in fixed_values.items() if self.program.last_use[node] >= self.cut}

    @cached_property
    def contribution_sums(self) -> ContributionSums | None:
        """The layer at the cut as a sum of what each part of its input adds, where that is cheaper."""
        layer = additive_layer(self.program, self.consumers, self.cut) if self.ablation.adds_up else None
        if layer is None:
            return None
        return ContributionSums(layer, self.ablation.means.get(consumer_key(layer.consumer)), self.program)

    def forget_contributions(self) -> None:
        """Drop the contributions of the last example."""
        self.__dict__.pop("contribution_sums", None)

    def values_of_microbatch(self, coalition: Tensor, values: MicrobatchValues) -> Tensor:
        """Return minus the losses of one coalition (1, players) on a whole microbatch, (1, examples)."""
        handlers = self.ablation.handlers(self.network, self.masks(coalition), self.consumers)
        with torch.no_grad():
            losses = self.run(dict(values.live), handlers, values.dense.reference, values.dense.examples)
        return losses.cpu().double()[None]

    def values_of_stack(
        self, coalitions: Tensor, values: MicrobatchValues, positions: Tensor, with_sums: bool = True
    ) -> Tensor:
        """Return minus the loss of each coalition with its own example of a microbatch, in one batch, (coalitions,).

        Args:
            coalitions: the players' presence (coalitions, players), booleans or gates between 0 and 1.
            values: the dense network's values of the microbatch.
            positions: the example of each coalition, (coalitions,); those of one example lie together.
            with_sums: whether the consumer at the cut may be computed as a sum of contributions.
        """
        masks = self.masks(coalitions)
        row_examples, rows = positions.tolist(), positions.to(self.network.device)
        has_many_rows = len(positions) >= MIN_ROWS * len(set(row_examples))
        sums = self.contribution_sums if with_sums and has_many_rows else None
        consumers = [consumer for consumer in self.consumers if sums is None or consumer is not sums.layer.consumer]
        handlers = self.ablation.handlers(self.network, masks, consumers)
        all_positions = None
        if sums is not None:
            operand = sums.layer.operand
            handlers[sums.layer.consumer.node] = sums.handler(
                values.live[operand], values.microbatch, row_examples, masks
            )
            all_positions = operand if self._is_read_once(operand) else None
        examples = values.dense.examples
        selected_values = {
            node: value
            if node is all_positions
            else select_rows(self.program, node.meta.get("val"), value, rows, examples)
            for node, value in values.live.items()
        }
        return self.run(selected_values, handlers, select_reference(values.dense.reference, rows), len(positions))

    def _is_read_once(self, operand: Node) -> bool:
        """Return whether only the consumer at the cut needs a value there."""
        return all(self.program.position[user] <= self.cut for user in operand.users)

    def masks(self, coalitions: Tensor) -> Tensor:
        """Return the presence of all units of the network, (coalitions, units + 1)."""
        masks = torch.ones(len(coalitions), self.network.units + 1, dtype=coalitions.dtype)
        for group, presence in zip(self.groups, coalitions.split(self.sizes, 1), strict=True):
            masks[:, group.span] = presence
        return masks

    def run(self, values: dict[Node, Any], handlers: dict[Node, OpOverride], reference: Reference, rows: int) -> Tensor:
        """Return minus the losses, from values at the cut, which are used up, (rows,)."""
        values.update(self._fixed)
        self.program.run(values, self.cut, self.end, {**self._gradient_handlers, **handlers}, self.program.output_nodes)
        with full_precision(self.network.device, self.precision):
            output = raise_precision(self.program.finish(values), self.precision)
            return -self.context.losses(output, reference, rows)
