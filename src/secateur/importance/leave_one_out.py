"""Criteria by real removal of units: one at a time, or greedily one after another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.importance.config import option_field
from secateur.importance.context import CriterionContext
from secateur.importance.registry import criterion
from secateur.importance.scores import GroupScores
from secateur.importance.shapley.config import EvaluationConfig
from secateur.importance.shapley.dense_run import DenseRun
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.game_sequence import games_in_order
from secateur.options import one_of
from secateur.options.call_checks import checked_calls

TIE_STEP = (
    1e-12  # by which a later unit ranks above an earlier one of no smaller loss; of the loss, where it is above 1
)


@checked_calls
@dataclass(frozen=True, kw_only=True)
class LeaveOneOut(EvaluationConfig):
    """Options of the change of the loss without one unit.

    Args:
        change: "signed" for each example's increase of the loss ("leave-one-out"), "squared" for the square of the
            change of the mean loss ("oracle", Molchanov et al. 2019), "absolute" for its absolute value
            ("oracle-absolute", Molchanov et al. 2017).
        memory, precision: as in `EvaluationConfig`.
    """

    change: str = option_field("signed", one_of("signed", "squared", "absolute"))


@checked_calls
@dataclass(frozen=True, kw_only=True)
class Greedy(EvaluationConfig):
    """Options of greedy removal.

    Args:
        memory, precision: as in `EvaluationConfig`.
    """


@criterion("leave-one-out", config=LeaveOneOut(), uses="loss")
def leave_one_out(context: CriterionContext, config: LeaveOneOut) -> dict[str, Tensor]:
    """Each example's increase of the loss without the unit."""
    return _increases_without_each(context, config, "leave-one-out")


@criterion("oracle", config=LeaveOneOut(change="squared"), uses="loss")
def oracle(context: CriterionContext, config: LeaveOneOut) -> dict[str, GroupScores]:
    """The square of the change of the mean loss without the unit (Molchanov et al. 2019)."""
    changes = _increases_without_each(context, config, "oracle")
    return {name: _of_mean(values, torch.square, lambda mean: 2 * mean.abs()) for name, values in changes.items()}


@criterion("oracle-absolute", config=LeaveOneOut(change="absolute"), uses="loss")
def oracle_absolute(context: CriterionContext, config: LeaveOneOut) -> dict[str, GroupScores]:
    """The absolute change of the mean loss without the unit (Molchanov et al. 2017)."""
    changes = _increases_without_each(context, config, "oracle-absolute")
    return {name: _of_mean(values, torch.abs, torch.ones_like) for name, values in changes.items()}


@criterion("greedy", config=Greedy(), uses="loss")
def greedy(context: CriterionContext, config: Greedy) -> dict[str, Tensor]:
    """The increase of the loss when the unit is removed, if always the unit of the least increase is removed next.

    With n units this takes n (n + 1) / 2 coalitions on every example.
    """
    return {game.groups[0].name: _greedy_increases(game) for game in _games(context, config, "greedy")}


def _games(context: CriterionContext, config: EvaluationConfig, name: str) -> Iterator[Game]:
    """Yield the game of each group, with a progress bar.

    Raises:
        DataError: there are no examples.
    """
    context.need_examples(name)
    cursor = DenseRun(context, config.memory_limit.bytes)
    return context.watched(games_in_order(context, config, cursor, gradients=False), name, len(context.groups))


def _of_mean(changes: Tensor, function: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> GroupScores:
    """Return a function of the mean change (units, examples), with its error to first order."""
    mean, examples = changes.mean(1), changes.shape[1]
    error = changes.std(1) / examples**0.5 if examples > 1 else torch.zeros_like(mean)
    return GroupScores(function(mean), slope(mean) * error)


def _increases_without_each(context: CriterionContext, config: EvaluationConfig, name: str) -> dict[str, Tensor]:
    """Return each example's increase of the loss without each unit, by group, (units, examples)."""
    increases = {}
    for game in _games(context, config, name):
        coalitions = ~torch.eye(game.players, dtype=torch.bool)
        losses = [_loss_increases(game, coalitions, microbatch) for microbatch in range(len(context.microbatches))]
        increases[game.groups[0].name] = torch.cat(losses, 1)
    return increases


def _greedy_increases(game: Game) -> Tensor:
    """Return the loss at which each unit is removed, (units,)."""
    is_present = torch.ones(game.players, dtype=torch.bool)
    increases = torch.zeros(game.players, dtype=torch.float64)
    highest = 0.0
    for _ in range(game.players):
        units = torch.nonzero(is_present).flatten()
        coalitions = is_present.repeat(len(units), 1)
        coalitions[torch.arange(len(units)), units] = False
        microbatches = range(len(game.context.microbatches))
        losses = torch.cat([_loss_increases(game, coalitions, microbatch) for microbatch in microbatches], 1).mean(1)
        removed_unit = int(units[losses.argmin()])
        is_present[removed_unit] = False
        increases[removed_unit] = max(highest, float(losses.min()))
        highest = increases[removed_unit].item() + TIE_STEP * max(
            1.0, increases[removed_unit].item()
        )  # later units rank higher
    return increases


def _loss_increases(game: Game, coalitions: Tensor, microbatch: int) -> Tensor:
    """Return each coalition's increase of the loss on each example of a microbatch, (coalitions, examples)."""
    everyone = torch.ones(1, game.players, dtype=torch.bool)
    positions = torch.arange(game.context.microbatches[microbatch].size or 1)
    values = game.cross(torch.cat([everyone, coalitions]), microbatch, positions)
    return values[:1] - values[1:]
