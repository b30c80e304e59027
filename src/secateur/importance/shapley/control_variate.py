"""Marginals along orders, with gradients as a control variate.

One backward pass at a coalition says of every player at once how much it adds there, to first order: for a member what
it would cost to lose it, for another what it would bring to join. The mean of both ends of a marginal, the trapezoid
rule, leaves little of it unexplained in layers of many units. So the trapezoids' expectation is estimated from many
examples and coalitions, where it costs one backward pass for all players, and what they leave unexplained from a few
orders, so that the sum has no bias. In the whole network's game (Owen's) the same is done for each group in turn,
beside random others that are whole or gone. (The multilinear extension: Owen 1972; gradients of it: Okhrati, Lipani
2021. The combination is our own.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.importance.estimates import Sample
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.samplers.kernelshap import of_sizes
from secateur.importance.shapley.sampling_blocks import in_turn, taken
from secateur.utils.rng import generator_for

EXAMPLES = 32
GRADIENT = 3  # evaluations that one with its gradient takes the time of, about


@dataclass(frozen=True, eq=False)
class ControlVariate:
    """One block: some coalitions of random sizes on each of a cell's examples, and one order on one of them.

    Args:
        sizes: how many of the players belong to each group; groups join one after the other.
        pairs: of coalitions for each group and example, each coalition with its complement.
        weights: what part each player takes of what a block's shares lack of v(all) - v(none), (players,). They must
            not depend on the block's draws, or the estimate would have a bias.
    """

    sizes: tuple[int, ...]
    pairs: int
    weights: Tensor
    name: str = "controlled"

    def sample(self, game: Game, numbers: Sequence[Tensor], seed: int, name: str, block: int) -> Sample:
        """One block, as its number says."""
        generator = generator_for(seed, name, block)
        cell = in_turn(seed, name, len(numbers), block)
        positions = taken(EXAMPLES, len(numbers[cell]), block // len(numbers))
        nobody, all_ = game.ends(cell, positions)
        gain = all_ - nobody  # (examples,)
        found = self._trapezoids(game, cell, positions, generator)  # (players, pairs, examples)
        found = found + (gain - found.sum(0)) * self.weights[:, None, None]
        place = int(torch.randint(len(positions), (1,), generator=generator))
        order = order_marginals(game, cell, int(positions[place]), joining(self.sizes, generator))
        left = order.marginals - order.trapezoids
        noise = found.var(1).mean(1) / self.pairs if self.pairs > 1 else torch.full((game.players,), torch.nan)
        coalitions = 2 * self.pairs * len(positions) * len(self.sizes) + game.players + 1
        correction = left - left.sum() * self.weights
        evaluations = GRADIENT * coalitions
        shares, noise = found.mean(1), noise.double()
        return Sample(numbers[cell][positions], shares, coalitions, evaluations, correction, noise)

    def _trapezoids(self, game: Game, cell: int, positions: Tensor, generator: torch.Generator) -> Tensor:
        """Of all groups, by coalitions of their own. (players, pairs, examples)"""
        own = range(len(self.sizes))
        return torch.cat([self._of_group(game, group, cell, positions, generator) for group in own])

    def _of_group(self, game: Game, group: int, cell: int, positions: Tensor, generator: torch.Generator) -> Tensor:
        players, count = self.sizes[group], self.pairs * len(positions)
        chances = size_chances(players)
        steps = (torch.arange(count) + torch.rand(1, generator=generator)) / count  # sizes spread evenly
        sizes = torch.searchsorted(chances.cumsum(0), steps.double()).clamp_max(players)
        sizes = sizes[torch.randperm(count, generator=generator)]
        members = beside(self.sizes, group, of_sizes(players, sizes, generator), generator)
        coalitions = torch.stack([members, ~members], 1).flatten(0, 1)
        _, slopes = game.gradients(coalitions, cell, positions.repeat_interleave(2 * self.pairs))
        before = sum(self.sizes[:group])
        mine = slice(before, before + players)
        found = trapezoids(coalitions[:, mine], slopes[:, mine], chances).view(len(positions), self.pairs, 2, players)
        return found.mean(2).permute(2, 1, 0)

    def __str__(self) -> str:
        groups = f" and group, {len(self.sizes)} groups" if len(self.sizes) > 1 else ""
        return f"gradients at {2 * self.pairs} coalitions an example{groups}, corrected along orders"


def joining(sizes: Sequence[int], generator: torch.Generator) -> Tensor:
    """A random order of all players in which those of one group join side by side, (players,)."""
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    groups = torch.randperm(len(sizes), generator=generator).tolist() if len(sizes) > 1 else [0]
    return torch.cat([offsets[group] + torch.randperm(sizes[group], generator=generator) for group in groups])


def beside(sizes: Sequence[int], group: int, members: Tensor, generator: torch.Generator) -> Tensor:
    """Coalitions of one group's members and those other groups, whole, that joined before it. (coalitions, players)"""
    count = len(members)
    ranks = torch.rand(count, len(sizes), generator=generator) if len(sizes) > 1 else torch.zeros(count, 1)
    joined = ranks < ranks[:, group : group + 1]  # (coalitions, groups)
    found = joined.repeat_interleave(torch.tensor(sizes), 1)
    before = sum(sizes[:group])
    found[:, before : before + sizes[group]] = members
    return found


def size_chances(players: int) -> Tensor:
    """How likely coalitions of each size from 0 to n are drawn: nearly as their slopes' weights ask. (players + 1,)"""
    sizes = torch.arange(players + 1, dtype=torch.float64)
    chances = (1 / sizes.clamp_min(0.5) + 1 / (players - sizes).clamp_min(0.5)).sqrt()
    return chances / chances.sum()


def trapezoids(coalitions: Tensor, slopes: Tensor, chances: Tensor) -> Tensor:
    """Slopes weighted so that their expectation is that of the trapezoids: both ends of every marginal, half each.

    Args:
        coalitions: of random sizes (coalitions, players).
        slopes: (coalitions, players).
        chances: of each size, (players + 1,).
    """
    players = coalitions.shape[1]
    sizes = coalitions.sum(1, keepdim=True)
    chance = chances[sizes]
    inside, outside = (1 / (chance * part.clamp_min(1)) for part in (sizes, players - sizes))
    return 0.5 * slopes * torch.where(coalitions, inside, outside)


@dataclass(frozen=True)
class OrderMarginals:
    """Each player's marginal when it joins, and the trapezoid for it, (players,)."""

    marginals: Tensor
    trapezoids: Tensor


def order_marginals(game: Game, cell: int, position: int, order: Tensor) -> OrderMarginals:
    """Both along one order of the players, on one example."""
    players = game.players
    joined = torch.empty(players, dtype=torch.long)
    joined[order] = torch.arange(players)
    coalitions = joined < torch.arange(players + 1)[:, None]
    values, slopes = game.gradients(coalitions, cell, torch.full((players + 1,), position))
    steps = torch.arange(players)
    marginals, explained = torch.empty(2, players, dtype=torch.float64)
    marginals[order] = values.diff()
    explained[order] = (slopes[steps, order] + slopes[steps + 1, order]) / 2
    return OrderMarginals(marginals, explained)


def weights_by(trial: OrderMarginals) -> Tensor:
    """Weights by how much each player moves along a trial order; who moves nothing gets none. (players,)"""
    moved = trial.marginals.abs() + trial.trapezoids.abs()
    return moved / moved.sum().clamp_min(1e-300)
