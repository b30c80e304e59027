"""Random scores, the baseline of all criteria."""

import torch

from secateur.importance.context import CriterionContext
from secateur.importance.registry import criterion
from secateur.importance.scores import GroupScores
from secateur.utils.rng import generator_for


@criterion("random", uses="nothing")
def random(context: CriterionContext) -> dict[str, GroupScores]:
    """Random numbers, uniform on [0, 1)."""
    return {
        group.name: GroupScores.exact(
            torch.rand(group.size, dtype=torch.float64, generator=generator_for(context.seed, group.name))
        )
        for group in context.groups
    }
