"""Criteria by really leaving units out, one at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from secateur.importance.context import CriterionContext
from secateur.importance.registry import criterion
from secateur.importance.scores import GroupScores
from secateur.importance.shapley.cursor import ProgramCursor
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.game_sequence import in_order
from secateur.importance.shapley.memory import memory_of


@criterion("leave-one-out", options=("memory", "precision"), uses="loss")
def leave_one_out(context: CriterionContext) -> dict[str, Tensor]:
    """How much each example's loss grows when only this unit is gone."""
    return _without_each(context, "leave-one-out")


@criterion("oracle", options=("memory", "precision"), uses="loss")
def oracle(context: CriterionContext) -> dict[str, GroupScores]:
    """The square of how much the mean loss changes when only this unit is gone (Molchanov et al. 2019)."""
    found = _without_each(context, "oracle")
    return {name: _of_change(changes, torch.square, lambda mean: 2 * mean.abs()) for name, changes in found.items()}


@criterion("oracle-absolute", options=("memory", "precision"), uses="loss")
def oracle_absolute(context: CriterionContext) -> dict[str, GroupScores]:
    """How much the mean loss changes when only this unit is gone, up or down (Molchanov et al. 2017)."""
    found = _without_each(context, "oracle-absolute")
    return {name: _of_change(changes, torch.abs, torch.ones_like) for name, changes in found.items()}


Of = Callable[[Tensor], Tensor]


def _of_change(changes: Tensor, function: Of, slope: Of) -> GroupScores:
    """A function of the mean change (units, examples), with its error to first order."""
    mean, examples = changes.mean(1), changes.shape[1]
    error = changes.std(1) / examples**0.5 if examples > 1 else torch.zeros_like(mean)
    return GroupScores(function(mean), slope(mean) * error)


def _without_each(context: CriterionContext, name: str) -> dict[str, Tensor]:
    """How much each example's loss grows without each unit. (units, examples) by group"""
    context.need_examples(name)
    found = {}
    frontier = ProgramCursor(context, memory_of(context.options))
    for game in context.watched(in_order(context, frontier, slopes=False), name, len(context.groups)):
        others = ~torch.eye(game.players, dtype=torch.bool)
        losses = [_loss_increase(game, others, cell) for cell in range(len(context.cells))]
        found[game.groups[0].name] = torch.cat(losses, 1)
    return found


@criterion("greedy", options=("memory", "precision"), uses="loss")
def greedy(context: CriterionContext) -> dict[str, Tensor]:
    """What the loss has grown to when a unit goes, if always the one goes whose removal then costs least.

    With n units that takes n (n + 1) / 2 coalitions on every example.
    """
    context.need_examples("greedy")
    frontier = ProgramCursor(context, memory_of(context.options))
    games = context.watched(in_order(context, frontier, slopes=False), "greedy", len(context.groups))
    return {game.groups[0].name: _greedy(game) for game in games}


def _greedy(game: Game) -> Tensor:
    present = torch.ones(game.players, dtype=torch.bool)
    grown = torch.zeros(game.players, dtype=torch.float64)
    most = 0.0
    for step in range(game.players):
        left = torch.nonzero(present).flatten()
        tried = present.repeat(len(left), 1)
        tried[torch.arange(len(left)), left] = False
        lost = torch.cat([_loss_increase(game, tried, cell) for cell in range(len(game.context.cells))], 1).mean(1)
        gone = int(left[lost.argmin()])
        present[gone] = False
        most = max(most, float(lost.min()))  # a later unit ranks higher, even if the loss falls when it goes
        grown[gone] = most + step * TINY
    return grown


TINY = 1e-12


def _loss_increase(game: Game, coalitions: Tensor, cell: int) -> Tensor:
    """What each coalition costs on each example of a cell. (coalitions, examples)"""
    everyone = torch.ones(1, game.players, dtype=torch.bool)
    values = game.cross(torch.cat([everyone, coalitions]), cell, torch.arange(game.context.cells[cell].size or 1))
    return values[:1] - values[1:]
