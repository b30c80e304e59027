"""Criteria of one game for each group: Shapley and Banzhaf values."""

from collections.abc import Callable
from functools import partial

from secateur.importance.context import CriterionContext
from secateur.importance.registry import criterion
from secateur.importance.scores import GroupScores
from secateur.importance.shapley.auto_sampler import design_scheme, needs_gradients, scheme_for
from secateur.importance.shapley.config import Banzhaf, SamplingConfig, Shapley
from secateur.importance.shapley.dense_run import DenseRun
from secateur.importance.shapley.estimate import estimate_game, estimation_run
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.game_sequence import games_in_order
from secateur.importance.shapley.samplers.banzhaf import banzhaf_at
from secateur.importance.shapley.sampling_blocks import SamplingScheme
from secateur.utils.progress import track


@criterion("shapley", config=Shapley(), uses="loss")
def shapley_values(context: CriterionContext, config: Shapley) -> dict[str, GroupScores]:
    """Each unit's fair share in the network's performance (Ancona, Öztireli, Gross 2020)."""
    context.need_examples("shapley")

    def scheme_of(game: Game) -> SamplingScheme:
        return scheme_for(game, config, config.statistic, context.seed, game.groups[0].name)

    return _group_by_group(context, config, scheme_of, needs_gradients(config))


@criterion("banzhaf", config=Banzhaf(), uses="loss")
def banzhaf_values(context: CriterionContext, config: Banzhaf) -> dict[str, GroupScores]:
    """The gain by a unit where each other one of its group is present with a probability (Banzhaf 1965)."""
    context.need_examples("banzhaf")
    sampler = banzhaf_at(config.probability)
    scheme_of = partial(design_scheme, sampler, aggregate=config.statistic)
    return _group_by_group(context, config, scheme_of, gradients=False)


def _group_by_group(
    context: CriterionContext, config: SamplingConfig, scheme_of: Callable[[Game], SamplingScheme], gradients: bool
) -> dict[str, GroupScores]:
    run = estimation_run(context, config)
    scores: dict[str, GroupScores] = {}
    cursor = DenseRun(run.context, config.memory_limit.bytes)
    games = games_in_order(run.context, config, cursor, gradients)
    for number, game in enumerate(track(games, "groups", len(context.groups)), 1):
        name = game.groups[0].name
        scores |= estimate_game(run, game, name, scheme_of(game), number / len(context.groups))
    return {group.name: scores[group.name] for group in context.groups}
