"""Refusal of weights with NaN or infinity."""

import torch
from torch import Tensor

from secateur.errors import DataError


def finite_weight(weight: Tensor, name: str) -> Tensor:
    """Return a weight as it is, if all of its entries are finite.

    Args:
        weight: the weight.
        name: its name, for the message.

    Raises:
        DataError: it holds NaN or infinity.
    """
    if not bool(torch.isfinite(weight).all()):
        bad = int((~torch.isfinite(weight)).sum())
        raise DataError(f"{name} has {bad} entries that are NaN or infinite; load weights that were trained to an end")
    return weight
