"""The optimal brain surgeon on whole units: what the loss grows by as they go and their readers are solved for anew.

Each reader is linear, so what it loses with a unit, and how the weights that stay best make up for it, is known from
the covariance of what it reads (Hassibi and Stork 1993; layer by layer: Dong et al. 2017). The error of its outputs
counts by the curvature of the loss along them, the mean outer product of gradients at classes that the network itself
draws (Fisher; Wang et al. 2019). Units of a group go one after another, always the one whose going costs least, and a
unit's score is the loss that has come together by then, in nats where the network gives class scores. That loss is the
divergence from the dense network's output: labels are not used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from secateur.coupling.network import Group, Network
from secateur.data.batch import Batch
from secateur.importance.activation_taps import ActivationTap, activation_taps
from secateur.importance.config import CriterionConfig, option_field
from secateur.importance.context import CriterionContext
from secateur.importance.elimination import ReaderFactor, eliminate_units
from secateur.importance.fisher import FisherFactors, drawn_loss, fisher_factors
from secateur.importance.gradient import backward_through
from secateur.importance.obs_batches import Portion, Readers, layers_in, portions_of
from secateur.importance.registry import criterion
from secateur.importance.shapley.memory import MemoryLimit
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.options import OPTIONS
from secateur.utils.live_bytes import peak_bytes
from secateur.utils.rng import generator_for

MOST_FEATURES = 6_000


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
    """The divergence that has come together when a unit goes, the others of its group going one by one before it.

    Units whose readers can't be solved for (attention products, normalisations, recurrent layers alone) are judged one
    by one by the square of what their gate adds.
    """
    context.need_examples("obs")
    network = context.network
    layers = [layer for layer in layers_of(network) if layer.reads and layer.features_of_group <= MOST_FEATURES]
    consumers = {group.name: [layer for layer in layers if group.owns(layer.inputs)] for group in context.groups}
    alone = [group for group in context.groups if not consumers[group.name]]
    if alone:
        _check_gates(context, config.memory_limit, alone)
    found: dict[str, Tensor] = {}
    for portion in portions_of(
        context, config.memory_limit, [group for group in context.groups if consumers[group.name]], consumers
    ):
        found |= _elimination_losses(context, portion, consumers)
    for name, losses in (_gate_losses(context, alone) if alone else {}).items():
        order = losses.argsort()
        found[name] = torch.empty_like(losses).index_copy(0, order, losses[order].cumsum(0))
    return found


def _elimination_losses(context: CriterionContext, portion: Portion, consumers: Readers) -> dict[str, Tensor]:
    """The scores of a portion's groups; the curvatures of its layers are gone when they are there."""
    seen = fisher_factors(context, layers_in(portion.groups, consumers), portion.drawn)
    found = {}
    for group in portion.groups:
        layers = consumers[group.name]
        factors = [factor for layer in layers for factor in _factors(context.network, group, layer, seen[layer])]
        found[group.name] = eliminate_units(group.size, factors)
        del factors
    return found


def _factors(network: Network, group: Group, layer: LinearLayer, moments: FisherFactors) -> Iterator[ReaderFactor]:
    """One for each group of a convolution's channels that has the group's units among its inputs."""
    owner = layer.inputs.repeat_interleave(layer.kernel).view(layer.groups, -1) - group.offset
    matrices = layer.matrix(network.program.state(layer.weight).detach()).to(moments.curvature)
    for number in range(layer.groups):
        inside = (owner[number] >= 0) & (owner[number] < group.size)
        counts = torch.bincount(owner[number][inside], minlength=group.size)
        width = int(counts[0])
        if width == 0 or bool((counts != width).any()):
            continue  # units that lie elsewhere
        features = torch.where(inside, owner[number], group.size).argsort(stable=True)[: group.size * width]
        weights = moments.weighted(matrices[number], number)
        yield ReaderFactor(weights, moments.inverse(number), features.view(-1, width))


def _gate_losses(context: CriterionContext, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Half the mean square of what each unit's gate adds to drawn losses: what its going costs to second order."""
    sites, draws = activation_taps(context), generator_for(context.seed, "gates")
    totals = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in groups}
    for cell in context.watched(context.microbatches, "obs"):
        found = _gate_slopes(context, sites, groups, cell, draws)
        totals = {name: total + found[name].square().sum(1) / 2 for name, total in totals.items()}
    examples = sum(cell.size or 1 for cell in context.microbatches)
    return {name: total / examples for name, total in totals.items()}


def _gate_slopes(
    context: CriterionContext,
    sites: tuple[ActivationTap, ...],
    groups: Sequence[Group],
    cell: Batch,
    draws: torch.Generator,
) -> dict[str, Tensor]:
    """What each unit's gate adds to a drawn loss of each example. (units, examples) by group"""
    return backward_through(context, sites, groups, cell, lambda z, g: z * g, lambda output: drawn_loss(output, draws))


def _check_gates(context: CriterionContext, limit: MemoryLimit, groups: Sequence[Group]) -> None:
    """
    Raises:
        BudgetError: a pass for gates takes more than the limit that the user has set.
    """
    if limit.requested is None:
        return
    cell = max(context.microbatches, key=lambda each: sum(tensor.numel() for tensor in each.tensors))
    draws = generator_for(context.seed, "gates")
    needed = peak_bytes(partial(_gate_slopes, context, activation_taps(context), groups, cell, draws))
    limit.check_bytes("rank by 'obs'", needed)
