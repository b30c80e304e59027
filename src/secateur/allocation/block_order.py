"""An order of whole blocks: by the divergence where a block is left out and the layers behind it are refitted."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import torch

from secateur.allocation.simulate import PlanSimulator
from secateur.coupling.group import Group
from secateur.coupling.network import Kept, Network
from secateur.coupling.residual_blocks import blocks_of, groups_inside, is_inside
from secateur.graph.operators import module_path
from secateur.masking.linear_layers import LinearLayer
from secateur.utils.shared_tasks import map_tasks

ROUNDS = 3
REFITTED = 3
Remaining = Callable[[Kept], float]


class BlockOrder:
    """Order the blocks of a network by the loss of leaving each out, divided by what that saves.

    Each block is left out in turn. The layers behind it are refitted, so that they correct the error of the residual
    stream, and the output is compared with the dense network's. The divergence depends on the blocks that are left out
    already. Therefore the first blocks of the order are left out before the others are measured again, a few times. A
    block that contains units that may not be removed is not in the order.

    Args:
        simulator: measures divergences, of a network traced with blocks beside other kinds.
        remaining: the fraction of the dense network that is kept, summed over the budget's units.
        scored_groups: the names of the groups whose units may be removed.
        is_time_up: called before each block; those that were not measured come last.
    """

    def __init__(
        self,
        simulator: PlanSimulator,
        remaining: Remaining,
        scored_groups: Set[str],
        is_time_up: Callable[[], bool] = lambda: False,
    ) -> None:
        group = blocks_of(simulator.network)
        assert group is not None
        self._group, self._prices = group, _BlockPrices(simulator, group, remaining, is_time_up)
        self._removable = [
            path for path in group.block_paths if _names_inside(simulator.network, path) <= scored_groups
        ]

    @cached_property
    def by_single_price(self) -> tuple[str, ...]:
        """The paths of blocks of which no two are neighbours, in ascending order of their prices if all others stay."""
        return tuple(_without_neighbours(self._first_ranking, self._group))

    @cached_property
    def _first_ranking(self) -> list[str]:
        return self._rank_blocks(())

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The paths of the blocks in order; later ones are measured again with the first ones left out."""
        order: list[str] = []
        share = -(-len(self._removable) // (ROUNDS + 1))
        for number in range(ROUNDS):
            ranking = self._rank_blocks(order) if order else self._first_ranking
            order += ranking if number == ROUNDS - 1 else _without_neighbours(ranking, self._group)[:share]
        return tuple(order)

    def _rank_blocks(self, removed_paths: Sequence[str]) -> list[str]:
        """Return the other blocks in ascending order of their prices."""
        other_paths = [path for path in self._removable if path not in removed_paths]
        prices = self._prices.measure(removed_paths, other_paths)
        return sorted(other_paths, key=lambda path: prices.get(path, float("inf")))


@dataclass(frozen=True)
class _BlockPrices:
    """The prices of blocks: the divergence if a block is left out, divided by what that saves."""

    simulator: PlanSimulator
    group: Group
    remaining: Remaining
    is_time_up: Callable[[], bool]

    def measure(self, removed_paths: Sequence[str], other_paths: Sequence[str]) -> dict[str, float]:
        """Return the price of each other block, where some are removed already.

        The loss of the removed blocks is subtracted. Otherwise blocks that save more would seem cheaper.
        """
        fraction = self.remaining(self._kept_without(removed_paths))
        loss_before = self._loss_without(removed_paths) if removed_paths and not self.is_time_up() else 0.0

        def price_of(path: str) -> float | None:
            if self.is_time_up():
                return None
            paths = [*removed_paths, path]
            saving = fraction - self.remaining(self._kept_without(paths))
            return (self._loss_without(paths) - loss_before) / max(saving, 1e-12)

        prices = map_tasks("losses without each block", other_paths, price_of)
        return {path: price for path, price in zip(other_paths, prices, strict=True) if price is not None}

    def _loss_without(self, paths: Sequence[str]) -> float:
        layers = {layer.node: layer for path in paths for layer in self._layers_behind(path)}
        return self.simulator.divergence(self._kept_without(paths), list(layers.values()))

    def _kept_without(self, paths: Sequence[str]) -> dict[str, torch.Tensor]:
        indices = [index for index, path in enumerate(self.group.block_paths) if path not in paths]
        return {self.group.name: torch.tensor(indices, dtype=torch.long)}

    def _layers_behind(self, path: str) -> list[LinearLayer]:
        """Return the first layers behind a block, in the order in which they run."""
        position, layers = self.simulator.network.program.position, self.simulator.layers
        inner_layers = [layer for layer in layers if is_inside(module_path(layer.node), [path])]
        last_position = max((position[layer.node] for layer in inner_layers), default=-1)
        return [layer for layer in layers if position[layer.node] > last_position][:REFITTED]


def _names_inside(network: Network, path: str) -> set[str]:
    """Return the names of the groups that lie within a block alone."""
    return {group.name for group in groups_inside(network, [path])}


def _without_neighbours(ranking: Sequence[str], group: Group) -> list[str]:
    """Return the blocks in the order of a ranking, without those that lie next to one before."""
    separate_paths: list[str] = []
    for path in ranking:
        index = group.block_paths.index(path)
        if not {index - 1, index + 1} & {group.block_paths.index(other) for other in separate_paths}:
            separate_paths.append(path)
    return separate_paths
