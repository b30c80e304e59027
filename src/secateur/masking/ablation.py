"""Run the program with ablated units: exactly the results of the cut network.

At every consumer the absent units count as nothing: a contraction gets zeros in their place, a normalisation over
channels takes its statistics from kept units. Where ablation keeps each unit's mean, what the consumer would
have made of that constant is added to its result, as it will be added to a bias when the network is cut.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.consumers import Consumer
from secateur.coupling.network import Network
from secateur.coupling.rules.registry import rule_of
from secateur.data.batch import Batch
from secateur.graph.draw_replay import draws_replayed_for_cut
from secateur.graph.program import OpOverride, Program
from secateur.masking.ablated_operators import masked_operator, mean_override, zeroing_override
from secateur.masking.computed_weights import by_coalition, is_shared_by_batch
from secateur.masking.constants import constant_response, masked_grouped_product, sum_over_kernel
from secateur.masking.operand_overrides import chain_overrides
from secateur.masking.operands import operand_node
from secateur.masking.recurrent import masked_recurrence

Means = Mapping[str, Tensor]


def consumer_key(consumer: Consumer) -> str:
    """Return the key of a consumer in tables of means and moments."""
    return f"{consumer.node.name}:{consumer.argument}"


@dataclass(frozen=True)
class MeanAblation:
    """Ablation of units: each is replaced by its mean, or by zero where there is none.

    Args:
        means: the mean of each consumer's input along the units' axis by `consumer_key`, (size,), or one for each
            coalition (coalitions, size); empty: zero.
    """

    means: Means
    _matrices: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def adds_up(self) -> bool:
        """True if the result of a linear consumer is the sum of the units' contributions."""
        return True

    def handlers(
        self, network: Network, masks: Tensor, consumers: Iterable[Consumer] | None = None
    ) -> dict[Node, OpOverride]:
        """Return the overrides of the consumers' operators for given masks of units.

        Args:
            network: the network.
            masks: which units stay (coalitions, units + 1); a batch holds its examples for each coalition in turn.
                Booleans, or numbers to take gradients by, which are never passed over where all are 1.
            consumers: the consumers concerned, all by default.
        """
        by_node: defaultdict[Node, list[OpOverride]] = defaultdict(list)
        consumers = network.consumers if consumers is None else tuple(consumers)
        of_weights: list[Node] = []
        for consumer in consumers:
            present = masks[:, consumer.units]
            if not masks.is_floating_point() and bool(present.all()):
                continue
            if len(masks) > 1 and not consumer.is_inner and is_shared_by_batch(network.program, operand_node(consumer)):
                of_weights.append(consumer.node)
            else:  # a recurrence runs once for each coalition, so its input is masked before, for all of them
                overrides = by_node[consumer.node]
                index = 0 if consumer.is_inner else len(overrides)
                overrides.insert(index, self._handler(network.program, consumer, present))
        shared_handlers = {node: chain_overrides(handlers) for node, handlers in by_node.items()}
        if not of_weights:
            return shared_handlers
        by_mask = [
            self._of_coalition(number).handlers(network, mask, consumers) for number, mask in enumerate(masks.split(1))
        ]
        return {**shared_handlers, **by_coalition(network.program, of_weights, by_mask)}

    def _of_coalition(self, number: int) -> "MeanAblation":
        """Return the ablation with the means of one coalition."""
        return MeanAblation({key: mean if mean.dim() == 1 else mean[number] for key, mean in self.means.items()})

    def _handler(self, program: Program, consumer: Consumer, present: Tensor) -> OpOverride:
        rule = rule_of(consumer.node)
        if consumer.is_inner:
            return partial(masked_recurrence, program, consumer.node, consumer.argument, present)
        if rule.masked is not None:
            return partial(masked_operator, rule.masked, program, consumer, present)
        mean = self.means.get(consumer_key(consumer)) if consumer.fold is not None else None
        if mean is not None and rule.layer in ("linear", "addmm") and len(present) > 1:
            return mean_override(program, consumer, present, mean)
        return zeroing_override(program, consumer, present, self.constant(program, consumer, present))

    def constant(self, program: Program, consumer: Consumer, present: Tensor) -> Tensor | None:
        """Return a consumer's response to the means of ablated units, or None. (coalitions, out) in float64

        Args:
            program: the program of the network.
            consumer: the operator that reads the units.
            present: the kept entries of its input (coalitions, in).
        """
        mean = self.means.get(consumer_key(consumer))
        if consumer.fold is None or mean is None:
            return None
        weight = program.state(consumer.fold.weight).detach()
        mean = mean.to(present.device)
        absent = (1 - present.to(mean)) * mean
        if len(present) == 1:
            return constant_response(weight, consumer.fold, absent)
        if consumer.fold.weight not in self._matrices:
            self._matrices[consumer.fold.weight] = sum_over_kernel(weight, consumer.fold)
        return masked_grouped_product(self._matrices[consumer.fold.weight], consumer.fold, absent)


def run_masked(
    network: Network, batch: Batch, mask: Tensor, means: Means, weights: Mapping[str, Tensor] | None = None
) -> Any:
    """Compute the network's output on a batch with only the units of one mask.

    Args:
        network: the network.
        batch: the batch.
        mask: which units stay (units + 1,).
        means: of absent units, by consumer; empty: zero.
        weights: other values of some parameters, by name, whose consumers have no means.
    """
    with torch.no_grad():
        return network.program.forward(batch, MeanAblation(means).handlers(network, mask[None]), weights)


def masked_draws(
    network: Network, batch: Batch, mask: Tensor, means: Means, weights: Mapping[str, Tensor] | None = None
) -> AbstractContextManager[Any]:
    """Let a cut network draw the masked run's numbers, without the entries of absent units, within a context.

    The arguments are those of `run_masked`.
    """

    def run(noting: Mapping[Node, OpOverride]) -> None:
        handlers = MeanAblation(means).handlers(network, mask[None])
        overrides_by_node = {
            node: [h[node] for h in (handlers, noting) if node in h] for node in {**handlers, **noting}
        }
        chained_overrides = {node: chain_overrides(overrides) for node, overrides in overrides_by_node.items()}
        network.program.forward(batch, chained_overrides, weights)

    return draws_replayed_for_cut(run, {draw.node: draw for draw in network.draws}, mask)
