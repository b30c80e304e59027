"""A repair is kept only if it brings the cut network nearer to the dense one on examples it has not seen."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from secateur.budget.plan import Plan
from secateur.data import Batch, device_of, on_device
from secateur.importance.losses import divergence
from secateur.network.program import preserved
from secateur.recovery.repair import repair


def repair_if_nearer(small: nn.Module, model: nn.Module, plan: Plan, batches: Sequence[Batch], how: str) -> bool:
    """Repair a cut model in place if that helps.

    It is tried on three quarters of the batches and judged on the others by the divergence from the dense network's
    output; if it helps, all batches are used. A single batch serves for both.

    Returns:
        Whether it was repaired.
    """
    held = max(1, len(batches) // 4)
    fitted, judged = (batches[:-held], batches[-held:]) if len(batches) > 1 else (batches, batches)
    tried = repair(copy.deepcopy(small), model, plan, list(fitted), how)
    before, after = (_divergence(each, model, judged) for each in (small, tried))
    if not after < before:
        return False
    repair(small, model, plan, list(batches), how)
    return True


def _divergence(small: nn.Module, model: nn.Module, batches: Sequence[Batch]) -> float:
    """The mean over examples."""
    device = device_of(model)
    found = []
    with preserved(small), preserved(model):
        for given in batches:
            batch = on_device(given, device)
            outputs = [network(*batch.args, **batch.kwargs) for network in (small, model)]
            found.append(divergence(*outputs).double())
    return float(torch.cat(found).mean())
