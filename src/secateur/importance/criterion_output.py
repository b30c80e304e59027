"""The values that a criterion returned, checked and converted to scores."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.group import Group
from secateur.errors import DataError
from secateur.importance.scores import GroupScores
from secateur.options import kind_text


def group_scores(name: str, group: Group, output: object) -> GroupScores:
    """Return the scores of a group from the values that a criterion returned.

    Args:
        name: the criterion's name.
        group: the group.
        output: the criterion's result for all groups.

    Raises:
        DataError: there is nothing, NaN, or not one score per unit.
    """
    if not isinstance(output, Mapping):
        raise DataError(
            f"criterion {name!r} gave {kind_text(output)}; it must return a dict from the names of context.groups to "
            "one score per unit"
        )
    scores = output.get(group.name)
    if scores is None:
        raise DataError(f"criterion {name!r} gave nothing for {group.name}, which has {group.size} units")
    scores = scores if isinstance(scores, GroupScores) else _from_tensor(_as_tensor(name, group, scores))
    has_shape = scores.values.shape == (group.size,)
    if not has_shape or not bool(torch.isfinite(scores.values).all()):
        reason = " with NaN or infinity among them" if has_shape else ""
        raise DataError(
            f"criterion {name!r} gave scores of shape {tuple(scores.values.shape)}{reason} for {group.name}, which has "
            f"{group.size} units"
        )
    return scores


def _as_tensor(name: str, group: Group, scores: Any) -> Tensor:
    """Return scores in any form that torch can convert to a tensor.

    Raises:
        DataError: torch can't.
    """
    try:
        return torch.as_tensor(scores).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as failure:
        raise DataError(
            f"criterion {name!r} gave {kind_text(scores)} for {group.name}, which is no tensor of its {group.size} "
            f"units' scores: {failure}"
        ) from failure


def _from_tensor(values: Tensor) -> GroupScores:
    """Return one score per unit, or the mean of one per unit and example with its standard error."""
    if values.dim() != 2:
        return GroupScores(values.double(), torch.zeros(values.shape, dtype=torch.float64))
    values = values.double()
    examples = values.shape[1]
    errors = values.std(1) / examples**0.5 if examples > 1 else torch.zeros(len(values), dtype=torch.float64)
    return GroupScores(values.mean(1), errors, values)
