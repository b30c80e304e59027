"""Batch norms that give, for the examples at hand, the means and variances that the dense network's give.

Taking the statistics anew would do the same if the examples were many and like those of the training. With few, or
with others, the dense network's own activations have other statistics than its batch norms hold, and the cut network
should keep that difference: what is matched is the dense network's output on the same examples.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data import Batch, merged
from secateur.network.program import preserved, run_module
from secateur.network.units import Network
from secateur.surgery.recipe import Recipe

MOST_EXAMPLES = 512
Norm = nn.modules.batchnorm._BatchNorm
Statistics = tuple[Tensor, Tensor]


def match_batchnorm(
    small: nn.Module, model: nn.Module, batches: Sequence[Batch], recipe: Recipe, network: Network
) -> None:
    """Correct the running statistics of the small model's batch norms in place, each after those before it."""
    batch = merged(batches, MOST_EXAMPLES)
    dense: dict[str, Statistics] = {}

    def observe(path: str, norm: Norm, x: Tensor) -> None:
        dense.setdefault(path, _statistics(x))

    with preserved(model):
        _watched(model, batch, observe)
    corrected: set[str] = set()

    def correct(path: str, norm: Norm, x: Tensor) -> None:
        if path in dense and path not in corrected:
            corrected.add(path)
            kept = recipe.slices.get(f"{path}.running_mean" if path else "running_mean", {}).get(0)
            _correct(norm, model.get_submodule(path), _statistics(x), dense[path], kept)

    before = {name: buffer.clone() for name, buffer in small.named_buffers()}
    meant: set[str] = set()
    try:
        _watched(small, batch, correct)
        meant = {f"{path}.{name}".lstrip(".") for path in corrected for name in ("running_mean", "running_var")}
    finally:  # what the model's own code wrote is undone, and everything if it failed
        for name, buffer in small.named_buffers():
            if name not in meant:
                buffer.copy_(before[name])


def _watched(model: nn.Module, batch: Batch, look: Callable[[str, Norm, Tensor], None]) -> None:
    """Run a model in evaluation mode and look at the input of each batch norm before it is used."""
    norms = {path: each for path, each in model.named_modules() if isinstance(each, Norm) and each.track_running_stats}
    hooks = [
        norm.register_forward_pre_hook(lambda norm, args, path=path: look(path, norm, args[0]))
        for path, norm in norms.items()
    ]
    try:
        run_module(model, batch)
    finally:
        for hook in hooks:
            hook.remove()


def _statistics(x: Tensor) -> Statistics:
    """Mean and variance of each channel, in float64. (channels,)"""
    channels = x.transpose(0, 1).flatten(1).double()
    return channels.mean(1), channels.var(1, correction=0)


def _correct(norm: Any, dense: Any, found: Statistics, wanted: Statistics, kept: Tensor | None) -> None:
    """Choose mean and variance so that the norm maps what it now gets to the dense norm's mean and variance."""
    every = torch.arange(len(dense.running_mean)) if kept is None else kept
    every = every.to(dense.running_mean.device)
    mean, variance = (part[every] for part in wanted)
    held_mean, held_variance = (part[every].double() for part in (dense.running_mean, dense.running_var))
    ratio = (found[1] + norm.eps) / (variance + norm.eps)
    new_variance = (held_variance + norm.eps) * ratio - norm.eps
    new_mean = found[0] - (mean - held_mean) * ratio.sqrt()
    norm.running_var.copy_(new_variance.clamp_min(0))
    norm.running_mean.copy_(new_mean)
