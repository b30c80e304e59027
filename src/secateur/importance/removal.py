"""Criteria by really leaving units out, one at a time."""

import torch
from torch import Tensor

from secateur.importance.evidence import Evidence
from secateur.importance.registry import criterion
from secateur.importance.shapley.frontier import Frontier
from secateur.importance.shapley.game import Game, in_order, memory_of


@criterion("leave-one-out")
def leave_one_out(evidence: Evidence) -> dict[str, Tensor]:
    """How much each example's loss grows when only this unit is gone."""
    evidence.need_examples("leave-one-out")
    found = {}
    frontier = Frontier(evidence, memory_of(evidence))
    for game in evidence.watched(in_order(evidence, frontier), "leave-one-out", len(evidence.groups)):
        others = ~torch.eye(game.players, dtype=torch.bool)
        losses = [_lost(game, others, cell) for cell in range(len(evidence.cells))]
        found[game.groups[0].name] = torch.cat(losses, 1)
    return found


def _lost(game: Game, coalitions: Tensor, cell: int) -> Tensor:
    """What each coalition costs on each example of a cell. (coalitions, examples)"""
    everyone = torch.ones(1, game.players, dtype=torch.bool)
    values = game.cross(torch.cat([everyone, coalitions]), cell, torch.arange(evidence_size(game, cell)))
    return values[:1] - values[1:]


def evidence_size(game: Game, cell: int) -> int:
    """How many examples a cell has."""
    return game.evidence.cells[cell].size or 1
