"""What all that hooks itself to an optimizer must see to."""

import torch
from torch import Tensor

from secateur.errors import DataError


def check_finite(gradient: Tensor, step: int, name: str) -> None:
    """
    Raises:
        DataError: a gradient is NaN or infinite; the step and the layer are named.
    """
    if not bool(torch.isfinite(gradient).all()):
        raise DataError(
            f"the gradient at step {step} is NaN or infinite in {name}; lower the learning rate, or scale gradients "
            "with a scaler, which skips such steps"
        )


def is_skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a scaler has told a fused optimizer that gradients overflowed, so that it does nothing in this step."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def scale_of(optimizer: torch.optim.Optimizer) -> float:
    """What the gradients are still to be divided by: fused optimizers are told by a scaler, and do it themselves."""
    return float(getattr(optimizer, "grad_scale", None) or 1)
