"""The optimal brain surgeon on whole units: the increase of the loss as units are removed and consumers refitted.

Each consumer is linear, so its error without a unit, and the best compensation by the kept weights, follow from the
covariance of its input (Hassibi and Stork 1993; layer by layer: Dong et al. 2017). The error of its outputs counts by
the curvature of the loss along them, the mean outer product of gradients at classes drawn from the network's own
distribution (Fisher; Wang et al. 2019). Units of a group are removed one after another, always the one whose removal
costs least, and a unit's score is the sum of the costs by then, in nats where the network gives class scores. The loss
is the divergence from the dense network's output: labels are not used.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.importance.activation_taps import ActivationTap, tapped_context
from secateur.importance.config import CriterionConfig, option_field
from secateur.importance.context import CriterionContext
from secateur.importance.drawn_loss import DrawnLosses
from secateur.importance.elimination import ConsumerFactor, eliminate_units
from secateur.importance.fisher import FisherFactors
from secateur.importance.fisher_pass import MAX_ROWS, fisher_factors
from secateur.importance.gradient import backward_through
from secateur.importance.obs_batches import GroupBatch, LinearConsumers, group_batches, layers_of_groups
from secateur.importance.registry import criterion
from secateur.importance.shapley.memory import MemoryLimit
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.options.call_checks import checked_calls
from secateur.options.table import OPTIONS
from secateur.utils.live_bytes import peak_bytes
from secateur.utils.progress import track
from secateur.utils.rng import generator_for
from secateur.utils.shared_tasks import map_shares

Moments = Mapping[LinearLayer, FisherFactors]


@checked_calls
@dataclass(frozen=True, kw_only=True)
class OptimalBrainSurgeon(CriterionConfig):
    """Options of the optimal brain surgeon.

    Args:
        memory: the largest number of bytes of activations that are alive at once, as for `Shapley`. By default all
            groups are scored in one pass.
    """

    memory: float | None = option_field(None, OPTIONS["memory"])

    @property
    def memory_limit(self) -> MemoryLimit:
        """The limit of memory."""
        return MemoryLimit(self.memory)


@criterion("obs", config=OptimalBrainSurgeon(), uses="nothing")
def optimal_brain_surgeon(context: CriterionContext, config: OptimalBrainSurgeon) -> dict[str, Tensor]:
    """The divergence without the unit and all units of its group that cost less, with their consumers refitted.

    Units whose consumers can't be refitted (attention products, normalisations, recurrent layers alone) are scored one
    by one by the square of their gate's gradient.
    """
    context.need_examples("obs")
    network = context.network
    layers = [layer for layer in layers_of(network) if layer.reads]
    consumers = {group.name: [layer for layer in layers if _contracts(layer, group)] for group in context.groups}
    gated_groups = [group for group in context.groups if not consumers[group.name]]
    if gated_groups:
        _check_gates(context, config.memory_limit, gated_groups)
    scores: dict[str, Tensor] = {}
    linear_groups = [group for group in context.groups if consumers[group.name]]
    for batch in group_batches(context, config.memory_limit, linear_groups, consumers):
        scores |= _elimination_losses(context, batch, consumers)
    for name, losses in (_gate_losses(context, gated_groups) if gated_groups else {}).items():
        order = losses.argsort()
        scores[name] = torch.empty_like(losses).index_copy(0, order, losses[order].cumsum(0))
    return scores


def _elimination_losses(context: CriterionContext, batch: GroupBatch, consumers: LinearConsumers) -> dict[str, Tensor]:
    """Return the scores of a batch of groups, which processes share, and free the curvatures of its layers."""

    def losses_of(groups: Sequence[Group]) -> list[Tensor]:
        moments = fisher_factors(context, layers_of_groups(groups, consumers), batch.drawn)
        return [
            _losses_of_group(context.network, group, consumers[group.name], moments)
            for group in track(groups, "elimination by group")
        ]

    costs = [_elimination_cost(consumers[group.name]) for group in batch.groups]
    losses = map_shares("elimination by group", batch.groups, losses_of, costs)
    return {group.name: values for group, values in zip(batch.groups, losses, strict=True)}


def _losses_of_group(network: Network, group: Group, layers: Sequence[LinearLayer], moments: Moments) -> Tensor:
    """Return the scores of a group's units. (units,)"""
    alike = _layers_by_input(layers, moments)
    factors = [factor for layers in alike for factor in _factors(network, group, layers, moments)]
    return eliminate_units(group.size, factors)


def _elimination_cost(layers: Sequence[LinearLayer]) -> float:
    """Return about how many operations the covariances of layers and the elimination of their inputs take."""
    return float(
        sum(layer.groups * layer.features_of_group**2 * (MAX_ROWS + layer.features_of_group) for layer in layers)
    )


def _layers_by_input(layers: Sequence[LinearLayer], moments: Moments) -> list[list[LinearLayer]]:
    """Return layers in lists of those that share the covariance of what they read."""
    by_covariance: dict[int, list[LinearLayer]] = {}
    for layer in layers:
        by_covariance.setdefault(id(moments[layer].covariance), []).append(layer)
    return list(by_covariance.values())


def _factors(
    network: Network, group: Group, layers: Sequence[LinearLayer], moments: Moments
) -> Iterator[ConsumerFactor]:
    """Yield a factor for each group of a convolution's channels that has the group's units among its inputs.

    Args:
        network: the network.
        group: the group of units.
        layers: a layer, or several that read alike: they are one layer with the outputs of all.
        moments: the covariances and curvatures.
    """
    layer, state = layers[0], network.program.state
    matrices = [consumer.matrix(state(consumer.weight).detach()).to(moments[consumer].curvature) for consumer in layers]
    for number, features in _features_of_units(layer, group):
        weights = [
            moments[consumer].weighted(matrix[number], number)
            for consumer, matrix in zip(layers, matrices, strict=True)
        ]
        yield ConsumerFactor(torch.cat(weights), moments[layer].inverse(number), features)


def _contracts(layer: LinearLayer, group: Group) -> bool:
    """Return whether some outputs of a layer are sums over all units of a group, whose removal the others can mend.

    Where the units are the groups of a convolution, each of its outputs reads one unit alone.
    """
    return group.owns(layer.inputs) and any(True for _ in _features_of_units(layer, group))


def _features_of_units(layer: LinearLayer, group: Group) -> Iterator[tuple[int, Tensor]]:
    """Yield the groups of a layer's channels that read all units alike, each with the features (units, width) of these.

    The width is the number of features of each unit.
    """
    owner = layer.inputs.repeat_interleave(layer.kernel).view(layer.groups, -1) - group.offset
    for number, units in enumerate(owner):
        is_of_group = (units >= 0) & (units < group.size)
        counts = torch.bincount(units[is_of_group], minlength=group.size)
        width = int(counts[0])
        if width > 0 and bool((counts == width).all()):
            features = torch.where(is_of_group, units, group.size).argsort(stable=True)[: group.size * width]
            yield number, features.view(-1, width)


def _gate_losses(context: CriterionContext, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Return half the mean square of each gate's gradient of drawn losses: the cost of a removal to second order."""
    (context, taps), losses = tapped_context(context), DrawnLosses(generator_for(context.seed, "gates"))
    totals = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in groups}
    for microbatch in context.watched(context.microbatches, "gradients of gates"):
        slopes = _gate_slopes(context, taps, groups, microbatch, losses)
        totals = {name: total + slopes[name].square().sum(1) / 2 for name, total in totals.items()}
    return {name: total / context.example_count for name, total in totals.items()}


def _gate_slopes(
    context: CriterionContext,
    taps: tuple[ActivationTap, ...],
    groups: Sequence[Group],
    microbatch: Batch,
    losses: DrawnLosses,
) -> dict[str, Tensor]:
    """Return each gate's gradient of a drawn loss of each example by group, (units, examples)."""
    loss = partial(losses.of, batch=microbatch)
    return backward_through(context, taps, groups, microbatch, lambda z, g: z * g, loss)


def _check_gates(context: CriterionContext, limit: MemoryLimit, groups: Sequence[Group]) -> None:
    """Check that a pass for gates keeps the user's limit.

    Raises:
        BudgetError: it needs more memory.
    """
    if limit.requested is None:
        return
    (context, taps), losses = tapped_context(context), DrawnLosses(generator_for(context.seed, "gates"))
    microbatch = max(context.microbatches, key=lambda batch: sum(tensor.numel() for tensor in batch.tensors))
    needed_bytes = peak_bytes(partial(_gate_slopes, context, taps, groups, microbatch, losses))
    limit.check_bytes("rank by 'obs'", needed_bytes)
