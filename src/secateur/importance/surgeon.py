"""The optimal brain surgeon on whole units: what the loss grows by as they go and their readers are solved for anew.

Each reader is linear, so what it loses with a unit, and how the weights that stay best make up for it, is known from
the covariance of what it reads (Hassibi and Stork 1993; layer by layer: Dong et al. 2017). The error of its outputs
counts by the curvature of the loss along them, the mean outer product of gradients at classes that the network itself
draws (Fisher; Wang et al. 2019). Units of a group go one after another, always the one whose going costs least, and a
unit's score is the loss that has come together by then, in nats where the network gives class scores. That loss is the
divergence from the dense network's output: labels are not used.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from secateur.data import Batch
from secateur.importance.curvature import Curvature, curvatures, drawn_loss
from secateur.importance.elimination import ReaderFactor, eliminate_units
from secateur.importance.evidence import Evidence
from secateur.importance.gradients import backward_through
from secateur.importance.live_bytes import peak_bytes
from secateur.importance.portions import Portion, Readers, layers_in, portions_of
from secateur.importance.registry import criterion
from secateur.importance.seeds import generator_for
from secateur.importance.shapley.memory import SLACK, memory_of, too_little
from secateur.importance.sites import Site, sites_of
from secateur.network.layers import Layer, layers_of
from secateur.network.units import Group, Network

MOST_FEATURES = 6_000


@criterion("obs", options=("memory",), uses="nothing")
def optimal_brain_surgeon(evidence: Evidence) -> dict[str, Tensor]:
    """The divergence that has come together when a unit goes, the others of its group going one by one before it.

    Units whose readers can't be solved for (attention products, normalisations, recurrent layers alone) are judged one
    by one by the square of what their gate adds.
    """
    evidence.need_examples("obs")
    network = evidence.network
    layers = [layer for layer in layers_of(network) if layer.reads and layer.features_of_group <= MOST_FEATURES]
    readers = {group.name: [layer for layer in layers if group.owns(layer.inputs)] for group in evidence.groups}
    alone = [group for group in evidence.groups if not readers[group.name]]
    if alone:
        _check_gates(evidence, alone)
    found: dict[str, Tensor] = {}
    for portion in portions_of(evidence, [group for group in evidence.groups if readers[group.name]], readers):
        found |= _eliminated(evidence, portion, readers)
    for name, losses in (_gate_losses(evidence, alone) if alone else {}).items():
        order = losses.argsort()
        found[name] = torch.empty_like(losses).index_copy(0, order, losses[order].cumsum(0))
    return found


def _eliminated(evidence: Evidence, portion: Portion, readers: Readers) -> dict[str, Tensor]:
    """The scores of a portion's groups; the curvatures of its layers are gone when they are there."""
    seen = curvatures(evidence, layers_in(portion.groups, readers), portion.drawn)
    found = {}
    for group in portion.groups:
        layers = readers[group.name]
        factors = [factor for layer in layers for factor in _factors(evidence.network, group, layer, seen[layer])]
        found[group.name] = eliminate_units(group.size, factors)
        del factors
    return found


def _factors(network: Network, group: Group, layer: Layer, moments: Curvature) -> Iterator[ReaderFactor]:
    """One for each group of a convolution's channels that has the group's units among its inputs."""
    owner = layer.inputs.repeat_interleave(layer.kernel).view(layer.groups, -1) - group.offset
    matrices = layer.matrix(network.program.state(layer.weight).detach()).to(moments.covariance)
    for number in range(layer.groups):
        inside = (owner[number] >= 0) & (owner[number] < group.size)
        counts = torch.bincount(owner[number][inside], minlength=group.size)
        width = int(counts[0])
        if width == 0 or bool((counts != width).any()):
            continue  # units that lie elsewhere
        features = torch.where(inside, owner[number], group.size).argsort(stable=True)[: group.size * width]
        weights = moments.weighted(matrices[number], number)
        yield ReaderFactor(weights, _inverse(moments.covariance[number]), features.view(-1, width))


def _inverse(covariance: Tensor) -> Tensor:
    """Of a covariance, with as little added to its diagonal as rounding makes it need."""
    level = covariance.diagonal().mean().clamp_min(1e-12) * torch.eye(len(covariance)).to(covariance)
    added = 0.0
    while True:
        factor, failed = torch.linalg.cholesky_ex(covariance + added * level)
        if not bool(failed):
            return torch.cholesky_inverse(factor)
        added = max(10 * added, 1e-8)


def _gate_losses(evidence: Evidence, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Half the mean square of what each unit's gate adds to drawn losses: what its going costs to second order."""
    sites, draws = sites_of(evidence), generator_for(evidence.seed, "gates")
    totals = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in groups}
    for cell in evidence.watched(evidence.cells, "obs"):
        found = _gate_slopes(evidence, sites, groups, cell, draws)
        totals = {name: total + found[name].square().sum(1) / 2 for name, total in totals.items()}
    examples = sum(cell.size or 1 for cell in evidence.cells)
    return {name: total / examples for name, total in totals.items()}


def _gate_slopes(
    evidence: Evidence, sites: tuple[Site, ...], groups: Sequence[Group], cell: Batch, draws: torch.Generator
) -> dict[str, Tensor]:
    """What each unit's gate adds to a drawn loss of each example. (units, examples) by group"""
    return backward_through(evidence, sites, groups, cell, lambda z, g: z * g, lambda output: drawn_loss(output, draws))


def _check_gates(evidence: Evidence, groups: Sequence[Group]) -> None:
    """
    Raises:
        BudgetError: a pass for gates takes more than the limit that the user has set.
    """
    if evidence.options.get("memory") is None:
        return
    cell = max(evidence.cells, key=lambda each: sum(tensor.numel() for tensor in each.tensors))
    draws = generator_for(evidence.seed, "gates")
    needed = peak_bytes(partial(_gate_slopes, evidence, sites_of(evidence), groups, cell, draws))
    if needed > SLACK * memory_of(evidence.options):
        raise too_little(memory_of(evidence.options), "rank by 'obs'", needed)
