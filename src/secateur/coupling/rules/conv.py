"""How labels pass convolutions of any rank, grouping and direction."""

import math

from torch import Tensor

from secateur.coupling.grouped_convolutions import goes_in_groups
from secateur.coupling.label_tracer import Weight, broadcast_labels, labelled_axes
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.matmul import bias_name_of, each_unit, freeze_all


def convolution(call: OpContext) -> Tensor:
    """Reads its channels; the filters are new units, or those of its input where it is depthwise."""
    x, weight, groups = call.activation("input"), call.args["weight"], call.args["groups"]
    if isinstance(weight, Tensor):
        return freeze_all(call, "its weight is computed from other tensors")
    dim = x.dim() - len(weight.shape) + 1
    kernel = math.prod(weight.shape[2:])
    if labelled_axes(x) and dim not in labelled_axes(x):
        return each_unit(call, x, dim, [weight, call.args["bias"]], kernel * weight.shape[1], weight.shape[2:])
    channels = call.trace.along(x, dim, call.node)
    out = call.along("weight", 0, produces=True)
    if call.args["bias"] is not None:
        call.tie(call.along("bias", 0), out)
    places = math.prod(call.shape) / len(out) * kernel
    per_group = weight.shape[1]
    if goes_in_groups(groups, per_group):
        _whole_groups(call, channels, out, groups)
        call.trace.count(call.node, places * per_group, out)
        return broadcast_labels(out, dim, call.shape)
    owned = call.along("weight", 1)
    rows = channels.view(groups, -1)
    call.tie(rows, owned)
    filters = out.view(groups, -1)
    call.tie(filters, filters[:1])
    name = weight.name if weight.whole else None
    call.trace.read(call.node, "input", dim, channels, name, bias_name_of(call.args["bias"]), outputs=out)
    call.trace.count(call.node, places, out, owned)
    return broadcast_labels(out, dim, call.shape)


def _whole_groups(call: OpContext, channels: Tensor, out: Tensor, groups: int) -> None:
    """A group of a grouped convolution goes with all its channels and filters; depthwise: a channel is a group."""
    rows = channels.view(groups, -1)
    call.tie(rows, rows[:, :1])
    call.tie(out.view(groups, -1), rows[:, :1])


def transposed_convolution(call: OpContext) -> Tensor:
    """The weight's first axis is read, its second makes units; a group of a grouped one goes whole."""
    x, weight, groups = call.activation("input"), call.args["weight"], call.args["groups"]
    if isinstance(weight, Tensor):
        return freeze_all(call, "its weight is computed from other tensors")
    dim = x.dim() - len(weight.shape) + 1
    kernel = math.prod(weight.shape[2:])
    if labelled_axes(x) and dim not in labelled_axes(x):
        return each_unit(call, x, dim, [weight, call.args["bias"]], kernel * weight.shape[0], weight.shape[2:])
    channels = call.trace.along(x, dim, call.node)
    owned = call.along("weight", 0)
    call.tie(owned, channels)
    places = math.prod(x.shape) / len(channels) * kernel
    if groups == 1:
        out = call.along("weight", 1, produces=True)
        call.trace.read(call.node, "input", dim, channels)
        call.trace.count(call.node, places, owned, out)
    else:
        rows = channels.view(groups, -1)
        call.tie(rows, rows[:, :1])
        out = rows[:, :1].expand(groups, weight.shape[1]).reshape(-1)
        call.trace.count(call.node, places * weight.shape[1], owned)
    if isinstance(call.args["bias"], Weight):
        call.tie(call.along("bias", 0), out)
    return broadcast_labels(out, dim, call.shape)
