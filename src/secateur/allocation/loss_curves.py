"""Curves of the loss as a group loses its units one after another."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from secateur.errors import BudgetError
from secateur.importance.scores import Scores
from secateur.options import kind_text

Curves = Mapping[str, Tensor]
BEYOND = 4.0


def curves_of(scores: Scores) -> Curves:
    """Return accumulated losses, such as scores by "obs", as curves that start at 0, (units + 1,) each."""
    return {
        name: _non_decreasing(torch.cat([torch.zeros(1), scores[name].values.double().sort().values]))
        for name in scores
    }


def check_curves(curves: Mapping[str, object], sizes: Mapping[str, int]) -> None:
    """Check curves that the user gave.

    Args:
        curves: a curve for each group.
        sizes: the number of units of each group that may lose some.

    Raises:
        BudgetError: a curve is missing, has another length, or NaN or infinity in it.
    """
    for name, size in sizes.items():
        curve = curves.get(name)
        if not isinstance(curve, Tensor) or curve.shape != (size + 1,) or not bool(torch.isfinite(curve).all()):
            form = f"a tensor of shape {tuple(curve.shape)}" if isinstance(curve, Tensor) else kind_text(curve)
            raise BudgetError(
                f"curves[{name!r}] is {form}; give a finite tensor ({size + 1},): the increase of the loss when 0, 1, "
                f"... and all {size} units are removed"
            )


def interpolate_curve(points: Mapping[int, float], size: int) -> Tensor:
    """Interpolate the curve of a group between measured points, (size + 1,).

    Losses begin as squares, so it is their roots that are interpolated, by monotone cubics (Fritsch and Butland 1984);
    where nothing is kept the loss is taken for four times the last one measured.

    Args:
        points: the loss by the number of removed units.
        size: the number of units.
    """
    from scipy.interpolate import PchipInterpolator

    removal_counts = [0, *sorted(points), *([size] if size not in points else [])]
    losses = _non_decreasing(torch.tensor([0.0, *(points[count] for count in sorted(points))], dtype=torch.float64))
    last_root = float((BEYOND * losses[-1]).clamp_min(1e-12).sqrt())
    roots = [*losses.clamp_min(0).sqrt().tolist(), last_root][: len(removal_counts)]
    return torch.from_numpy(PchipInterpolator(removal_counts, roots)(np.arange(size + 1))).square()


def _non_decreasing(losses: Tensor) -> Tensor:
    return losses.cummax(0).values
