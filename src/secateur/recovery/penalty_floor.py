"""The least penalty on changes of a layer's weights, so that units that hardly vary do not get huge weights.

A ridge in proportion to the mean square of each input does not depend on the scale of a unit. But a unit that is silent
on nearly all examples has a tiny mean square, and no more reason for large weights than others.
"""

import math

import torch
from torch import Tensor

from secateur.recovery.regression_moments import RegressionMoments

RESOLUTION = 2**-8  # of an input: smaller differences are not relied on
OUTPUTS = 128  # whose weights are squared at once, and of which medians are taken


def penalty_floor(matrix: Tensor, moments: RegressionMoments, features: int, shift: Tensor | None = None) -> Tensor:
    """Return the least penalty on the square of each weight's change, for each row. (groups, features)

    It is the expected square of what a weight adds to the layer's error where inputs are known to one part in 256 only,
    as integers of 8 bits are: the same for all inputs of a layer, but less for those that have larger weights than the
    others in their group. The scale of a unit shows in its weights, so that it does not matter. An output that reads
    hardly anything but silent inputs does not tell how large weights are. A constant has no floor.

    Args:
        matrix: the layer's weights before the change (groups, outputs, features).
        moments: of the layer's inputs.
        features: the number of inputs, without the constant.
        shift: what was subtracted from the inputs (groups, 1, features), or None.
    """
    floor = torch.zeros_like(moments.squares)
    if not features:
        return floor
    squares = moments.squares[:, :features] / max(moments.rows, 1)
    if shift is not None:
        squares = squares + shift[:, 0].to(squares).square()
    shares = _mean_shares(matrix[..., :features], squares)
    typical = shares.where(shares <= _limits(shares), torch.nan).nanmean(1, keepdim=True)  # (groups, 1)
    floors = RESOLUTION**2 / features / torch.maximum(shares, typical)
    floor[:, :features] = floors.where(typical > 0, 0.0)
    return floor


def _mean_shares(weights: Tensor, squares: Tensor) -> Tensor:
    """Return the mean over outputs of what the error of an input adds to an output's power. (groups, features)

    Args:
        weights: of the layer (groups, outputs, features).
        squares: the mean square of each input (groups, features).
    """
    limits = _limits(_shares(weights[:, :: math.ceil(weights.shape[1] / OUTPUTS)], squares))
    total, counts = torch.zeros_like(squares), torch.zeros_like(squares)
    for rows in weights.split(OUTPUTS, 1):  # the squares of a wide layer's weights need not be held at once
        shares = _shares(rows, squares)
        is_usual = shares <= limits
        total += shares.where(is_usual, 0.0).sum(1)
        counts += is_usual.sum(1)
    return total / counts.clamp_min(1)


def _shares(weights: Tensor, squares: Tensor) -> Tensor:
    """Return squared weights for each output's power; NaN for outputs without power. (groups, outputs, features)"""
    squared_weights = weights.to(squares).square()
    powers = squared_weights @ squares[..., None]  # of each output, if inputs are independent (groups, outputs, 1)
    return (squared_weights / powers).where(powers > torch.finfo(powers.dtype).tiny, torch.nan)


def _limits(shares: Tensor) -> Tensor:
    """Return the largest shares that count along the second axis, from the median of those that are not zero."""
    return _medians(shares.where(shares > 0, torch.nan)) / RESOLUTION**2


def _medians(values: Tensor) -> Tensor:
    """Return the lower median along the second axis of what is a number; infinity where nothing is."""
    if values.device.type == "cpu":  # in a half to a third of the time of sorting
        return values.nanmedian(1, keepdim=True).values.nan_to_num(torch.inf, torch.inf)
    sorted_values = values.nan_to_num(torch.inf, torch.inf).sort(1).values
    middle = ((sorted_values < torch.inf).sum(1, keepdim=True) - 1).clamp_min(0) // 2
    return sorted_values.gather(1, middle)
