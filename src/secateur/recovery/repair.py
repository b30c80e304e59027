"""`repair`: mend in closed form, from unlabelled examples, what a cut broke."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from secateur.data import Batch, as_batches, device_of, on_device
from secateur.errors import NameMatchError
from secateur.network.program import evaluation_mode

Repair = Callable[[nn.Module, nn.Module, Sequence[Batch]], None]


def repair(small: nn.Module, model: nn.Module, data: Any, how: str = "batchnorm") -> nn.Module:
    """Mend a cut model, in place.

    Args:
        small: the cut model.
        model: the dense one that it should be like.
        data: examples, with or without labels, as `score` takes them; labels are not used.
        how: "batchnorm": means and variances of batch norms are taken anew from the examples.

    Returns:
        The cut model.

    Raises:
        NameMatchError: there is no such repair.
        DataError: the examples can't be used.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2)).eval()
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> small = sc.cut(model, sc.plan(network, sc.score(network, by="l2"), keep={"macs": 0.5}))
        >>> data = torch.randn(50, 4)
        >>> torch.allclose(sc.repair(small, model, data)[1].running_mean, small[0](data).mean(0), atol=1e-6)
        True
    """
    if how not in REPAIRS:
        raise NameMatchError(f"no repair is named {how!r}; known are {', '.join(REPAIRS)}")
    device = device_of(small)
    batches = [on_device(batch, device) for batch in as_batches(data)]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        REPAIRS[how](small, model, batches)
    return small


def batchnorm(small: nn.Module, model: nn.Module, batches: Sequence[Batch]) -> None:
    """Statistics of batch norms, averaged over the batches; each norm sees what the ones before it now give."""
    norms = [
        module
        for module in small.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    usable = [batch for batch in batches if (batch.size or 0) > 1]
    if not norms or not usable:
        return
    momenta = [norm.momentum for norm in norms]
    with evaluation_mode(small):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum, norm.training = None, True
            for batch in usable:
                small(*batch.args, **batch.kwargs)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


REPAIRS: dict[str, Repair] = {"batchnorm": batchnorm}
