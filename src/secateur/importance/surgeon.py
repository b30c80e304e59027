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

import torch
from torch import Tensor

from secateur.importance.curvature import Curvature, curvatures, drawn_loss
from secateur.importance.evidence import Evidence
from secateur.importance.gradients import backward_through
from secateur.importance.registry import criterion
from secateur.importance.seeds import generator_for
from secateur.importance.sites import sites_of
from secateur.network.layers import Layer, layers_of
from secateur.network.units import Group, Network

MOST_FEATURES = 6_000
MEMORY = 1 << 30
AT_ONCE = 64


@criterion("obs", options=(), uses="nothing")
def optimal_brain_surgeon(evidence: Evidence) -> dict[str, Tensor]:
    """The divergence that has come together when a unit goes, the others of its group going one by one before it.

    Units whose readers can't be solved for (attention products, normalisations, recurrent layers alone) are judged one
    by one by the square of what their gate adds.
    """
    evidence.need_examples("obs")
    network = evidence.network
    layers = [layer for layer in layers_of(network) if layer.reads and layer.features_of_group <= MOST_FEATURES]
    readers = {group.name: [layer for layer in layers if group.owns(layer.inputs)] for group in evidence.groups}
    found = {}
    for portion in _portions([group for group in evidence.groups if readers[group.name]], readers):
        wanted = list(dict.fromkeys(layer for group in portion for layer in readers[group.name]))
        seen = curvatures(evidence, wanted)
        for group in portion:
            parts = [part for layer in readers[group.name] for part in _parts(network, group, layer, seen[layer])]
            found[group.name] = eliminate(group.size, parts)
    alone = [group for group in evidence.groups if not readers[group.name]]
    for name, losses in (_gate_losses(evidence, alone) if alone else {}).items():
        order = losses.argsort()
        found[name] = torch.empty_like(losses).index_copy(0, order, losses[order].cumsum(0))
    return found


def _portions(groups: Sequence[Group], readers: dict[str, list[Layer]]) -> Iterator[list[Group]]:
    """Groups in portions whose readers' covariances find room in memory together."""
    portion: list[Group] = []
    taken: set[Layer] = set()
    for group in groups:
        together = taken | set(readers[group.name])
        if portion and sum(layer.groups * layer.features_of_group**2 * 8 for layer in together) > MEMORY:
            yield portion
            portion, together = [], set(readers[group.name])
        portion, taken = [*portion, group], together
    if portion:
        yield portion


@dataclass
class Part:
    """How one matrix that reads a group's units answers to their going; changed in place as they go.

    Args:
        weights: times the root of the curvature along its outputs (outputs, features).
        inverse: of the covariance of what it reads (features, features).
        features: of each unit (units, features of a unit).
    """

    weights: Tensor
    inverse: Tensor
    features: Tensor

    def costs(self, units: Tensor) -> Tensor:
        """What the going of each unit alone costs. (units,)"""
        at = self.features[units]
        blocks = self.inverse[at[:, :, None], at[:, None, :]]  # (units, features, features)
        columns = self.weights[:, at].permute(1, 2, 0)  # (units, features, outputs)
        costs: Tensor = (torch.linalg.solve(blocks, columns) * columns).sum((1, 2))
        return costs

    def remove(self, units: Tensor) -> None:
        """The weights that stay make up for these units as well as they can."""
        at = self.features[units].flatten()
        pivot = torch.linalg.solve(self.inverse[at][:, at], self.inverse[at])  # (features of units, features)
        self.weights -= self.weights[:, at] @ pivot
        self.inverse -= self.inverse[:, at] @ pivot
        self.weights[:, at] = 0
        self.inverse[at] = 0
        self.inverse[:, at] = 0
        self.inverse[at, at] = 1


def _parts(network: Network, group: Group, layer: Layer, seen: Curvature) -> Iterator[Part]:
    """One for each group of a convolution's channels that has the group's units among its inputs."""
    owner = layer.inputs.repeat_interleave(layer.kernel).view(layer.groups, -1) - group.offset
    matrices = layer.matrix(network.program.state(layer.weight).detach()).to(seen.covariance)
    for number in range(layer.groups):
        own = [torch.nonzero(owner[number] == unit).flatten() for unit in range(group.size)]
        lengths = {len(each) for each in own}
        if len(lengths) > 1 or lengths == {0}:
            continue  # units that lie elsewhere
        values, vectors = torch.linalg.eigh(seen.curvature[number])
        root = (vectors * values.clamp_min(0).sqrt()).T
        yield Part(root @ matrices[number], _inverse(seen.covariance[number]), torch.stack(own))


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
        found = backward_through(
            evidence, sites, groups, cell, lambda z, g: z * g, lambda output: drawn_loss(output, draws)
        )
        totals = {name: total + found[name].square().sum(1) / 2 for name, total in totals.items()}
    examples = sum(cell.size or 1 for cell in evidence.cells)
    return {name: total / examples for name, total in totals.items()}


def eliminate(size: int, parts: Sequence[Part]) -> Tensor:
    """The cost that has come together when each unit goes. (units,)"""
    left = torch.arange(size)
    total, reached = torch.zeros(size, dtype=torch.float64), 0.0
    while len(left):
        costs = sum((part.costs(left) for part in parts), torch.zeros(len(left), dtype=torch.float64)).cpu()
        order = costs.argsort(stable=True)[: max(1, len(left) // AT_ONCE)]
        gone = left[order]
        total[gone] = reached + costs[order].clamp_min(0).cumsum(0) / 2
        reached = float(total[gone[-1]])
        for part in parts:
            part.remove(gone)
        left = left[~torch.isin(left, gone)]
    return total
