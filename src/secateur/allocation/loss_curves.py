"""What the loss grows by as a group loses its units one after another."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from secateur.errors import BudgetError
from secateur.importance.scores import Scores
from secateur.options import described

Curves = Mapping[str, Tensor]
BEYOND = 4.0


def curves_of(scores: Scores) -> Curves:
    """Scores that are losses which have come together, such as those by "obs", as curves: from 0 up. (units + 1,)"""
    return {name: _rising(torch.cat([torch.zeros(1), scores[name].values.double().sort().values])) for name in scores}


def check_curves(curves: Mapping[str, object], sizes: Mapping[str, int]) -> None:
    """
    Args:
        curves: a curve for each group, as the user gave them.
        sizes: how many units each group has that may lose some.

    Raises:
        BudgetError: one is missing, has another length, or NaN or infinity in it.
    """
    for name, size in sizes.items():
        curve = curves.get(name)
        if not isinstance(curve, Tensor) or curve.shape != (size + 1,) or not bool(torch.isfinite(curve).all()):
            got = f"a tensor of shape {tuple(curve.shape)}" if isinstance(curve, Tensor) else described(curve)
            raise BudgetError(
                f"curves[{name!r}] is {got}; give a finite tensor ({size + 1},): what the loss grows by when 0, 1, ... "
                f"and all {size} units are gone"
            )


def interpolate_curve(points: Mapping[int, float], size: int) -> Tensor:
    """The curve of a group through some measured points: the loss by the number of units that are gone. (size + 1,)

    Losses begin as squares, so it is their roots that are interpolated, by monotone cubics (Fritsch and Butland 1984);
    where nothing is left it is taken for four times the last one measured.
    """
    from scipy.interpolate import PchipInterpolator

    gone = [0, *sorted(points), *([size] if size not in points else [])]
    losses = _rising(torch.tensor([0.0, *(points[at] for at in sorted(points))], dtype=torch.float64))
    roots = [*losses.clamp_min(0).sqrt().tolist(), float((BEYOND * losses[-1]).clamp_min(1e-12).sqrt())][: len(gone)]
    found = PchipInterpolator(gone, roots)(np.arange(size + 1))
    return torch.from_numpy(found).square()


def _rising(losses: Tensor) -> Tensor:
    return losses.cummax(0).values
