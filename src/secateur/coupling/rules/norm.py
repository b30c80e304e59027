"""Label rules of normalisations, and normalisations whose statistics are those of the units that are kept."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateur.coupling.labels import Labels, Weight, broadcast_labels, labelled_axes
from secateur.coupling.rules.context import OpContext, frozen
from secateur.coupling.rules.elementwise import elementwise
from secateur.coupling.rules.literals import norm_groups, normalized_shape
from secateur.coupling.rules.module_attributes import (
    batch_norm_attributes,
    group_norm_attributes,
    layer_norm_attributes,
)
from secateur.coupling.rules.op_rule import OpRule, RuleTable
from secateur.coupling.rules.parameter_axes import map_labels
from secateur.coupling.rules.position_axes import batch_norm_channels
from secateur.coupling.rules.reduction import is_parameter, read_along

STATISTICS = ("weight", "bias", "running_mean", "running_var")


def batch_norm(op: OpContext) -> Any:
    """Couple each channel with its statistics and weights."""
    if is_parameter(op, "input"):
        return _standardise_weight(op)
    labels = op.activation("input")
    channels = op.axis_labels(labels, 1)
    for name in STATISTICS:
        if op.args.get(name) is not None:
            op.couple(op.axis_labels(name, 0), channels)
    uses_batch = op.args.get("training") or op.args.get("use_input_stats")
    if uses_batch and op.args.get("running_mean") is not None:
        op.freeze(labels, "batch norm is in training mode")
    return labels if isinstance(op.shape, torch.Size) else (labels, *frozen(op.shape[1:]))


def _standardise_weight(op: OpContext) -> Labels:
    """Return a parameter whose rows are given mean 0 and variance 1 before it is used as a weight."""
    weight: Weight = op.args["input"]
    read_along(op, "input", {0, *range(2, len(weight.shape))})
    operands: dict[str, Labels] = {"input": weight}
    for name in STATISTICS:
        value = op.args.get(name)
        if value is not None:
            shape = (1, -1, *[1] * (len(weight.shape) - 2))
            operands[name] = map_labels(value, partial(torch.reshape, shape=shape))
    return elementwise(op.with_args(operands, weight.shape))


def layer_norm(op: OpContext) -> Any:
    """Read the units along the axes that are normalised; elsewhere each entry passes by itself."""
    labels = op.activation("input")
    first_axis = labels.dim() - len(op.args["normalized_shape"])
    normalised_axes = {dim for dim in labelled_axes(labels) if dim >= first_axis}
    if normalised_axes and labelled_axes(labels) - normalised_axes and not op.tracer.scope.by_width:
        for dim in normalised_axes:  # heads that are normalised one by one remain whole
            op.couple(labels, labels.narrow(dim, 0, 1))
            labels = labels.narrow(dim, 0, 1).expand(labels.shape)
        normalised_axes = set()
    elif len(normalised_axes) > 1:
        op.freeze(labels, "is normalised across two kinds of units")
        normalised_axes = set()
    for weight in (op.args[name] for name in ("weight", "bias") if isinstance(op.args.get(name), Weight)):
        for axis in range(len(weight.shape)):
            entries = op.axis_labels(weight, axis)
            if first_axis + axis in normalised_axes:
                op.couple(entries, op.axis_labels(labels, first_axis + axis))
            else:
                op.freeze(entries, "the same weights serve every unit")
    for dim in normalised_axes:
        op.read("input", dim, op.axis_labels(labels, dim))
    return labels


def group_norm(op: OpContext) -> Any:
    """Couple the channels of each group, which are removed together; read the channels of a single group."""
    labels = op.activation("input")
    channels = op.axis_labels(labels, 1)
    groups = op.args["num_groups"]
    for name in ("weight", "bias"):
        if isinstance(op.args.get(name), Weight):
            op.couple(op.axis_labels(name, 0), channels)
    if groups > 1:
        rows = channels.view(groups, -1)
        op.couple(rows, rows[:, :1])
    else:
        op.read("input", 1, channels)
    return broadcast_labels(channels, 1, labels.shape)


def _standardise(x: Tensor, present: Tensor, dims: list[int], eps: float) -> Tensor:
    """Give mean 0 and variance 1 over some axes to the entries that are present; zeros where there are none."""
    count = present.expand(x.shape).sum(dims, keepdim=True).clamp_min(1)
    deviations = (x - (x * present).sum(dims, keepdim=True) / count) * present
    variance = deviations.square().sum(dims, keepdim=True) / count
    return deviations * torch.rsqrt(variance + eps)


def _scale_and_shift(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _channel_affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1, *[1] * (y.dim() - 2))
    return _scale_and_shift(
        y, None if weight is None else weight.view(shape), None if bias is None else bias.view(shape)
    )


def masked_layer_norm(
    present: Tensor, input: Tensor, normalized_shape: list[int], weight: Any, bias: Any, eps: float, **_: Any
) -> Tensor:
    """Compute a layer norm over the entries that are present."""
    dims = list(range(input.dim() - len(normalized_shape), input.dim()))
    return _scale_and_shift(_standardise(input, present, dims, eps), weight, bias)


def masked_group_norm(
    present: Tensor, input: Tensor, num_groups: int, weight: Any, bias: Any, eps: float, **_: Any
) -> Tensor:
    """Compute a group norm of a single group over the channels that are present."""
    return _channel_affine(_standardise(input, present, list(range(1, input.dim())), eps), weight, bias)


def masked_rms_norm(
    present: Tensor, input: Tensor, normalized_shape: list[int], weight: Any, eps: float | None, **_: Any
) -> Tensor:
    """Compute an RMS norm over the entries that are present."""
    dims = list(range(input.dim() - len(normalized_shape), input.dim()))
    count = present.expand(input.shape).sum(dims, keepdim=True).clamp_min(1)
    square = (input * present).square().sum(dims, keepdim=True) / count
    small = torch.finfo(input.dtype).eps if eps is None else eps
    y = input * present * torch.rsqrt(square + small)
    return y if weight is None else y * weight


def masked_batch_norm(present: Tensor, input: Tensor, weight: Any, bias: Any, eps: float, **_: Any) -> Tensor:
    """Compute a batch norm with the statistics of the batch itself, as weights are standardised by it."""
    return _channel_affine(_standardise(input, present, [0, *range(2, input.dim())], eps), weight, bias)


RULES: RuleTable = {
    "batch_norm": OpRule(
        batch_norm,
        masked=masked_batch_norm,
        norm="batch",
        channels="batch norm",
        keeps_apart=batch_norm_channels,
        attributes={nn.modules.batchnorm._NormBase: batch_norm_attributes},
    ),
    "_native_batch_norm_legit_no_training": OpRule(batch_norm, norm="batch", channels="batch norm"),
    "instance_norm": OpRule(batch_norm, channels="batch norm"),
    "layer_norm": OpRule(
        layer_norm,
        literals=normalized_shape,
        masked=masked_layer_norm,
        norm="layer",
        attributes={nn.LayerNorm: layer_norm_attributes},
    ),
    "rms_norm": OpRule(
        layer_norm,
        literals=normalized_shape,
        masked=masked_rms_norm,
        norm="layer",
        attributes={nn.RMSNorm: layer_norm_attributes},
    ),
    "group_norm": OpRule(
        group_norm,
        literals=norm_groups,
        masked=masked_group_norm,
        norm="group",
        attributes={nn.GroupNorm: group_norm_attributes},
    ),
}
