"""`repair`: mend in closed form, from unlabelled examples, what a cut broke."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from secateur.data import Batch, as_batches, device_of, on_device
from secateur.errors import NameMatchError
from secateur.network.program import evaluation_mode

Repair = Callable[[nn.Module, Sequence[Batch]], None]


def repair(model: nn.Module, data: Any, how: str = "batchnorm") -> nn.Module:
    """Mend a cut model, in place.

    Args:
        model: the cut model.
        data: examples, with or without labels, as `score` takes them; labels are not used.
        how: "batchnorm": means and variances of batch norms are taken anew from the examples.

    Returns:
        The model.

    Raises:
        NameMatchError: there is no such repair.
        DataError: the examples can't be used.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).eval()
        >>> model = sc.repair(model, torch.randn(500, 2))
        >>> bool((model(torch.randn(500, 2)).mean(0).abs() < 0.3).all())
        True
    """
    if how not in REPAIRS:
        raise NameMatchError(f"no repair is named {how!r}; known are {', '.join(REPAIRS)}")
    device = device_of(model)
    batches = [on_device(batch, device) for batch in as_batches(data)]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        REPAIRS[how](model, batches)
    return model


def batchnorm(model: nn.Module, batches: Sequence[Batch]) -> None:
    """Statistics of batch norms, averaged over the batches; each norm sees what the ones before it now give."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    usable = [batch for batch in batches if (batch.size or 0) > 1]
    if not norms or not usable:
        return
    momenta = [norm.momentum for norm in norms]
    with evaluation_mode(model):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum, norm.training = None, True
            for batch in usable:
                model(*batch.args, **batch.kwargs)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


REPAIRS: dict[str, Repair] = {"batchnorm": batchnorm}
