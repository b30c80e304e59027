"""The least penalty on changes of a layer's weights, so that units that hardly vary do not get huge weights.

A ridge in proportion to the mean square of each input does not depend on the scale of a unit. But a unit that is silent
on nearly all examples has a tiny mean square, and no more reason for large weights than others.
"""

import torch
from torch import Tensor

from secateur.recovery.regression_moments import RegressionMoments

RESOLUTION = 2**-8  # of an input: smaller differences are not relied on
OUTPUTS = 128  # whose weights are squared at once


def penalty_floor(matrix: Tensor, moments: RegressionMoments, features: int, shift: Tensor | None = None) -> Tensor:
    """Return the least penalty on the square of each weight's change, for each row. (groups, features)

    It is the expected square of what a weight adds to the layer's error where inputs are known to one part in 256 only,
    as integers of 8 bits are: the same for all inputs of a layer, but less for those that have larger weights than the
    others. The scale of a unit shows in its weights, so that it does not matter. A constant has no floor.

    Args:
        matrix: the layer's weights before the change (groups, outputs, features).
        moments: of the layer's inputs.
        features: the number of inputs, without the constant.
        shift: what was subtracted from the inputs (groups, 1, features), or None.
    """
    floor = torch.zeros_like(moments.squares)
    squares = moments.squares[:, :features] / max(moments.rows, 1)
    if shift is not None:
        squares = squares + shift[:, 0].to(squares).square()
    shares = torch.zeros_like(squares)
    for rows in matrix.split(OUTPUTS, 1):  # the squares of a wide layer's weights need not be held at once
        weights = rows[..., :features].to(squares).square()  # (groups, outputs, features)
        powers = weights @ squares[..., None]  # of each output, if inputs are independent (groups, outputs, 1)
        shares += (weights / powers.clamp_min(torch.finfo(powers.dtype).tiny)).sum(1)
    shares /= matrix.shape[1]
    typical = float(shares.mean())
    if typical > 0:
        floor[:, :features] = RESOLUTION**2 / features / shares.clamp_min(typical)
    return floor
