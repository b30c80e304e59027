"""Criteria by really leaving units out, one at a time."""

import torch
from torch import Tensor

from secateur.importance.evidence import Evidence
from secateur.importance.registry import criterion
from secateur.importance.shapley.game import MEMORY, Game


@criterion("leave-one-out")
def leave_one_out(evidence: Evidence) -> dict[str, Tensor]:
    """How much each example's loss grows when only this unit is gone."""
    evidence.need_examples("leave-one-out")
    found = {}
    for group in evidence.watched(evidence.groups, "leave-one-out"):
        game = Game(evidence, group, evidence.cells, int(evidence.options.get("memory") or MEMORY))
        coalitions = torch.cat([torch.ones(1, group.size, dtype=torch.bool), ~torch.eye(group.size, dtype=torch.bool)])
        values = torch.cat([game(coalitions, cell) for cell in range(len(evidence.cells))], 1)
        found[group.name] = values[:1] - values[1:]
    return found
