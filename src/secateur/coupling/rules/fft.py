"""How labels pass Fourier transforms, and views of complex numbers as pairs."""

import torch
from torch import Tensor

from secateur.coupling.label_tracer import Labels
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.parameter_axes import grown, layerwise, narrowed
from secateur.coupling.rules.reduction import settled


def transformed(call: OpContext) -> Labels:
    """A transform mixes all entries along its axes, where there can be no units; elsewhere they pass."""
    value = call.args["self"]
    dims = call.args.get("dim")
    last = range(len(value.shape) - len(call.args["s"]), len(value.shape)) if call.args.get("s") else None
    axes = [dims] if isinstance(dims, int) else dims or last or range(len(value.shape))
    along = {axis % len(value.shape) for axis in axes}
    return grown(narrowed(call, value, along, "is transformed along these units"), call.shape)


def as_pairs(call: OpContext) -> Labels:
    """`view_as_real`: the two parts of a number belong to its unit."""
    pairs: Labels = layerwise(call.args["self"], lambda labels: labels.unsqueeze(-1).expand(call.shape))
    return pairs


def as_complex(call: OpContext) -> Labels:
    """`view_as_complex`: the two parts of a number go together."""
    value = call.args["self"]
    last = len(value.shape) - 1
    if isinstance(value, Tensor):
        passed = settled(call, value, {last}, "are the two parts of a number")
        value = torch.zeros((), dtype=torch.long).expand(value.shape) if passed is None else passed
    slim = narrowed(call, value, {last}, "are the two parts of a number")
    return layerwise(slim, lambda labels: labels.squeeze(-1))  # type: ignore[no-any-return]
