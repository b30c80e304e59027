"""Criteria of one game for the whole network: its players are the units of all groups that are scored, together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.errors import DataError
from secateur.importance.context import CriterionContext
from secateur.importance.estimates import Sample
from secateur.importance.registry import criterion
from secateur.importance.scores import GroupScores
from secateur.importance.shapley.auto_sampler import control_variate_for, control_variate_if_precise
from secateur.importance.shapley.config import AUTO, CONTROLLED, ExpectedGradients, Owen
from secateur.importance.shapley.control_variate import BLOCK_EXAMPLES, GRADIENT_COST, nested_order
from secateur.importance.shapley.estimate import estimate_game, estimation_run
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.game_sequence import whole_game
from secateur.importance.shapley.samplers.base import CoalitionDesign, Sampler
from secateur.importance.shapley.samplers.permutation import orders_and_reverses
from secateur.importance.shapley.sampling_blocks import (
    DesignScheme,
    SamplingScheme,
    microbatch_of_block,
    positions_of_visit,
)
from secateur.utils.rng import generator_for

WHOLE = "the whole network"


@criterion("owen", config=Owen(), uses="loss")
def owen_values(context: CriterionContext, config: Owen) -> dict[str, GroupScores]:
    """Each unit's share in the whole network's game, where groups join one after the other (Owen 1977).

    In a random order of the groups, and of the units in each, a unit gets its gain when it joins; each order is
    taken backwards as well. The values of all units sum to the gain of the network over one without any.
    """
    context.need_examples("owen")
    check_same_players(context)
    run = estimation_run(context, config)
    game = whole_game(run.context, config, config.sampler in (AUTO, CONTROLLED))
    scheme: SamplingScheme | None = None
    if config.sampler == CONTROLLED:
        scheme = control_variate_for(game, config.statistic, context.seed, WHOLE)
    elif config.sampler == AUTO:
        scheme = control_variate_if_precise(game, config.statistic, context.seed, WHOLE)
    return estimate_game(run, game, WHOLE, scheme or DesignScheme("owen", nested_sampler(game.sizes), 2), 1.0)


def check_same_players(context: CriterionContext) -> None:
    """Check that scores to resume are shares in the game of the same groups, as those of fewer or more are others.

    Raises:
        DataError: they are shares in the game of other groups.
    """
    earlier = {} if context.resume_from is None else context.resume_from
    before, now = (
        {name for name in earlier if earlier[name].samples is not None},
        {group.name for group in context.groups},
    )
    if before and before != now:
        others = ", ".join(sorted(before ^ now)[:3])
        raise DataError(
            f"the scores to resume are shares in the game of other groups ({others}); give the same only= and skip=, "
            "or start anew"
        )


def nested_sampler(sizes: Sequence[int]) -> Sampler:
    """Return the sampler of orders in which the players of one group join side by side, each with its reverse.

    Args:
        sizes: the number of players of each group.
    """

    def sampler(players: int, generator: torch.Generator) -> CoalitionDesign:
        return orders_and_reverses(nested_order(sizes, generator)[None])

    return sampler


@criterion("expected-gradients", config=ExpectedGradients(), uses="gradients")
def expected_gradients(context: CriterionContext, config: ExpectedGradients) -> dict[str, GroupScores]:
    """A surrogate for the whole network's Shapley value, all units from each backward pass.

    The slope of the loss by a unit's presence, expected over coalitions in which each unit of any group is present with
    a probability that is itself drawn between 0 and 1: the gradient of the multilinear extension along its diagonal
    (Owen 1972), at coalitions of units that are wholly present or absent.
    """
    context.need_examples("expected-gradients")
    check_same_players(context)
    run = estimation_run(context, config)
    game = whole_game(run.context, config, gradients=True)
    return estimate_game(run, game, WHOLE, GateGradients(), 1.0)


@dataclass(frozen=True)
class GateGradients:
    """A block of gradients: two coalitions and their complements for each example of a microbatch."""

    fixed_blocks: int | None = None

    def sample(self, game: Game, numbers: Sequence[Tensor], seed: int, name: str, block: int) -> Sample:
        """Return the sample of one block, as `SamplingScheme` defines it."""
        generator = generator_for(seed, name, block)
        microbatch = microbatch_of_block(seed, name, len(numbers), block)
        positions = positions_of_visit(BLOCK_EXAMPLES, len(numbers[microbatch]), block // len(numbers))
        rows = 2 * len(positions)
        probabilities = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows  # spread evenly
        probabilities = probabilities[torch.randperm(rows, generator=generator)]
        members = torch.rand(rows, game.players, generator=generator) < probabilities[:, None]
        coalitions = torch.stack([members, ~members], 1).flatten(0, 1)
        _, slopes = game.gradients(coalitions, microbatch, positions.repeat_interleave(4))
        by_pair = slopes.view(len(positions), 2, 2, game.players).mean(2)  # (examples, pairs, players)
        zeros = torch.zeros(game.players, dtype=torch.float64)
        noise = by_pair.var(1).mean(0) / 2
        count = len(coalitions)
        return Sample(numbers[microbatch][positions], by_pair.mean(1).T, count, GRADIENT_COST * count, zeros, noise)

    def __str__(self) -> str:
        return "expected gradients at 4 coalitions an example, a surrogate"
