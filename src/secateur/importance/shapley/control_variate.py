"""Marginals along orders, with gradients as a control variate.

One backward pass at a coalition gives every player's marginal there, to first order: for a member the cost of losing
it, for another player the gain by its joining. The mean of both ends of a marginal, the trapezoid rule, leaves little
of it unexplained in layers of many units. So the trapezoids' expectation is estimated from many examples and
coalitions, where it costs one backward pass for all players, and what they leave unexplained from a few orders, so that
the sum has no bias. In the whole network's game (Owen's) the same is done for each group in turn, beside random others
that are wholly present or absent. (The multilinear extension: Owen 1972; gradients of it: Okhrati, Lipani 2021. The
combination is our own.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.importance.estimates import Sample
from secateur.importance.scheme_names import controlled_name
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.samplers.kernelshap import of_sizes
from secateur.importance.shapley.sampling_blocks import microbatch_of_block, positions_of_visit
from secateur.utils.rng import generator_for

BLOCK_EXAMPLES = 32
GRADIENT_COST = 3  # evaluations that take about the time of one with its gradient


@dataclass(frozen=True, eq=False)
class ControlVariate:
    """A block of coalitions of random sizes on each of a microbatch's examples, and one order on one of them.

    Args:
        sizes: the number of players of each group; groups join one after the other.
        pairs: the number of pairs of a coalition and its complement, for each group and example.
        weights: the fraction that each player takes of the gap between v(all) - v(none) and the sum of a block's
            shares, (players,). They must not depend on the block's draws, or the estimate would have a bias.
        fixed_blocks: as in `SamplingScheme`.
    """

    sizes: tuple[int, ...]
    pairs: int
    weights: Tensor
    fixed_blocks: int | None = None

    def sample(self, game: Game, numbers: Sequence[Tensor], seed: int, name: str, block: int) -> Sample:
        """Return the sample of one block, as `SamplingScheme` defines it."""
        generator = generator_for(seed, name, block)
        microbatch = microbatch_of_block(seed, name, len(numbers), block)
        positions = positions_of_visit(BLOCK_EXAMPLES, len(numbers[microbatch]), block // len(numbers))
        none_present, all_present = game.ends(microbatch, positions)
        gain = all_present - none_present  # (examples,)
        shares = self._trapezoids(game, microbatch, positions, generator)  # (players, pairs, examples)
        shares = shares + (gain - shares.sum(0)) * self.weights[:, None, None]
        index = int(torch.randint(len(positions), (1,), generator=generator))
        order = order_marginals(game, microbatch, int(positions[index]), nested_order(self.sizes, generator))
        residual = order.marginals - order.trapezoids
        noise = shares.var(1).mean(1) / self.pairs if self.pairs > 1 else torch.full((game.players,), torch.nan)
        coalitions = 2 * self.pairs * len(positions) * len(self.sizes) + game.players + 1
        correction = residual - residual.sum() * self.weights
        examples, evaluations = numbers[microbatch][positions], GRADIENT_COST * coalitions
        return Sample(examples, shares.mean(1), coalitions, evaluations, correction, noise.double())

    def _trapezoids(self, game: Game, microbatch: int, positions: Tensor, generator: torch.Generator) -> Tensor:
        """Return the trapezoids of all groups, each by its own coalitions, (players, pairs, examples)."""
        groups = range(len(self.sizes))
        return torch.cat([self._group_trapezoids(game, group, microbatch, positions, generator) for group in groups])

    def _group_trapezoids(
        self, game: Game, group: int, microbatch: int, positions: Tensor, generator: torch.Generator
    ) -> Tensor:
        players, count = self.sizes[group], self.pairs * len(positions)
        probabilities = size_probabilities(players)
        steps = (torch.arange(count) + torch.rand(1, generator=generator)) / count  # sizes spread evenly
        sizes = torch.searchsorted(probabilities.cumsum(0), steps.double()).clamp_max(players)
        sizes = sizes[torch.randperm(count, generator=generator)]
        members = beside_other_groups(self.sizes, group, of_sizes(players, sizes, generator), generator)
        coalitions = torch.stack([members, ~members], 1).flatten(0, 1)
        _, slopes = game.gradients(coalitions, microbatch, positions.repeat_interleave(2 * self.pairs))
        players_before = sum(self.sizes[:group])
        span = slice(players_before, players_before + players)
        estimates = trapezoids(coalitions[:, span], slopes[:, span], probabilities)
        return estimates.view(len(positions), self.pairs, 2, players).mean(2).permute(2, 1, 0)

    def __str__(self) -> str:
        return controlled_name(2 * self.pairs, len(self.sizes))


def nested_order(sizes: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw an order of all players in which those of one group join side by side, (players,)."""
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    groups = torch.randperm(len(sizes), generator=generator).tolist() if len(sizes) > 1 else [0]
    return torch.cat([offsets[group] + torch.randperm(sizes[group], generator=generator) for group in groups])


def beside_other_groups(sizes: Sequence[int], group: int, members: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the other groups that join before one, and return them whole beside its members, (coalitions, players)."""
    count = len(members)
    ranks = torch.rand(count, len(sizes), generator=generator) if len(sizes) > 1 else torch.zeros(count, 1)
    has_joined = ranks < ranks[:, group : group + 1]  # (coalitions, groups)
    coalitions = has_joined.repeat_interleave(torch.tensor(sizes), 1)
    players_before = sum(sizes[:group])
    coalitions[:, players_before : players_before + sizes[group]] = members
    return coalitions


def size_probabilities(players: int) -> Tensor:
    """Return the probability of each size from 0 to n, near to the optimum for the slopes' weights, (players + 1,)."""
    sizes = torch.arange(players + 1, dtype=torch.float64)
    probabilities = (1 / sizes.clamp_min(0.5) + 1 / (players - sizes).clamp_min(0.5)).sqrt()
    return probabilities / probabilities.sum()


def trapezoids(coalitions: Tensor, slopes: Tensor, probabilities: Tensor) -> Tensor:
    """Weight slopes so that their expectation is that of the trapezoids: both ends of every marginal, half each.

    Args:
        coalitions: of random sizes (coalitions, players).
        slopes: (coalitions, players).
        probabilities: the probability of each size, (players + 1,).
    """
    players = coalitions.shape[1]
    sizes = coalitions.sum(1, keepdim=True)
    probability = probabilities[sizes]
    inside, outside = (1 / (probability * count.clamp_min(1)) for count in (sizes, players - sizes))
    return 0.5 * slopes * torch.where(coalitions, inside, outside)


@dataclass(frozen=True)
class OrderMarginals:
    """Each player's marginal when it joins, and the trapezoid that approximates it, (players,)."""

    marginals: Tensor
    trapezoids: Tensor


def order_marginals(game: Game, microbatch: int, position: int, order: Tensor) -> OrderMarginals:
    """Return marginals and trapezoids along one order of the players, on one example."""
    players = game.players
    join_order = torch.empty(players, dtype=torch.long)
    join_order[order] = torch.arange(players)
    coalitions = join_order < torch.arange(players + 1)[:, None]
    values, slopes = game.gradients(coalitions, microbatch, torch.full((players + 1,), position))
    steps = torch.arange(players)
    marginals, approximations = torch.empty(2, players, dtype=torch.float64)
    marginals[order] = values.diff()
    approximations[order] = (slopes[steps, order] + slopes[steps + 1, order]) / 2
    return OrderMarginals(marginals, approximations)


def weights_by(trial: OrderMarginals) -> Tensor:
    """Return weights in proportion to each player's changes of the value along a trial order, (players,)."""
    changes = trial.marginals.abs() + trial.trapezoids.abs()
    return changes / changes.sum().clamp_min(1e-300)
