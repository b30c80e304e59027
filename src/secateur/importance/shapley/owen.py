"""Games of the whole network: its players are the units of all groups that are scored, together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.errors import NameMatchError
from secateur.importance.context import CriterionContext
from secateur.importance.estimates import Sample
from secateur.importance.registry import SAMPLED, criterion
from secateur.importance.scores import GroupScores
from secateur.importance.shapley.aggregates import Aggregate
from secateur.importance.shapley.auto_sampler import controlled_for, corrected
from secateur.importance.shapley.control_variate import GRADIENT, joining
from secateur.importance.shapley.estimate import estimated, estimation_run
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.game_sequence import whole_game
from secateur.importance.shapley.samplers.base import CoalitionDesign, Sampler
from secateur.importance.shapley.samplers.permutation import orders_and_reverses
from secateur.importance.shapley.sampling_blocks import DesignScheme, SamplingScheme, in_turn, taken
from secateur.utils.rng import generator_for

EXAMPLES = 32
WHOLE = "the whole network"


@criterion("owen", options=(*SAMPLED, "estimator"), estimators=("controlled", "antithetic"), uses="loss")
def owen_values(context: CriterionContext) -> dict[str, GroupScores]:
    """Each unit's share in the whole network's game, where groups join one after the other (Owen 1977).

    In a random order of the groups, and of the units in each, a unit gets what it adds when it joins; each order is
    taken backwards as well. The values of all units sum to what the network is worth beyond one without any.
    """
    context.need_examples("owen")
    return _together(context, _owen, (context.options.get("estimator") or "auto") != "antithetic")


def _owen(game: Game, context: CriterionContext, aggregate: Aggregate) -> SamplingScheme:
    """
    Raises:
        NameMatchError: an estimator that this game hasn't got.
        SecateurError: "controlled" was asked for, and the game has no gradients.
    """
    wanted = context.options.get("estimator") or "auto"
    if wanted not in OWEN:
        raise NameMatchError(f"estimator={wanted!r} is none of the whole network's game; known are {', '.join(OWEN)}")
    return OWEN[wanted](game, aggregate, context.seed, WHOLE) or DesignScheme("owen", nested(game.sizes), 2)


OWEN: dict[str, Callable[[Game, Aggregate, int, str], SamplingScheme | None]] = {
    "auto": corrected,
    "controlled": controlled_for,
    "antithetic": lambda *_: None,
}


def nested(sizes: Sequence[int]) -> Sampler:
    """Orders in which the players of one group join side by side, each with its reverse.

    Args:
        sizes: how many players each group has.
    """

    def estimator(players: int, generator: torch.Generator) -> CoalitionDesign:
        return orders_and_reverses(joining(sizes, generator)[None])

    return estimator


@criterion("expected-gradients", options=SAMPLED, uses="gradients")
def expected_gradients(context: CriterionContext) -> dict[str, GroupScores]:
    """A surrogate for the whole network's Shapley value, all units from each backward pass.

    The slope of the loss by a unit's presence, expected over coalitions in which each unit of any group is present with
    a chance that is itself drawn between 0 and 1: the gradient of the multilinear extension along its diagonal (Owen
    1972), for units that are wholly there or wholly not.
    """
    context.need_examples("expected-gradients")
    return _together(context, lambda *_: GateGradients(), slopes=True)


@dataclass(frozen=True)
class GateGradients:
    """One block: two coalitions and their complements for each example of a cell."""

    name: str = "expected-gradients"

    def sample(self, game: Game, numbers: Sequence[Tensor], seed: int, name: str, block: int) -> Sample:
        """One block, as its number says."""
        generator = generator_for(seed, name, block)
        cell = in_turn(seed, name, len(numbers), block)
        positions = taken(EXAMPLES, len(numbers[cell]), block // len(numbers))
        rows = 2 * len(positions)
        chances = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows  # spread evenly
        chances = chances[torch.randperm(rows, generator=generator)]
        members = torch.rand(rows, game.players, generator=generator) < chances[:, None]
        coalitions = torch.stack([members, ~members], 1).flatten(0, 1)
        _, slopes = game.gradients(coalitions, cell, positions.repeat_interleave(4))
        found = slopes.view(len(positions), 2, 2, game.players).mean(2)  # (examples, pairs, players)
        nothing = torch.zeros(game.players, dtype=torch.float64)
        noise = found.var(1).mean(0) / 2
        count = len(coalitions)
        return Sample(numbers[cell][positions], found.mean(1).T, count, GRADIENT * count, nothing, noise)

    def __str__(self) -> str:
        return "expected gradients at 4 coalitions an example, a surrogate"


def _together(
    context: CriterionContext, layout_of: Callable[[Game, CriterionContext, Aggregate], SamplingScheme], slopes: bool
) -> dict[str, GroupScores]:
    """The scores of all groups from one game."""
    course = estimation_run(context, "mean")
    game = whole_game(course.context, slopes)
    return estimated(course, game, WHOLE, layout_of(game, context, course.aggregate), 1.0)
