"""Label rules of convolutions of any rank, grouping and direction."""

import math

from torch import Tensor, nn

from secateur.coupling.grouped_convolutions import removes_whole_groups
from secateur.coupling.labels import Weight, labelled_axes
from secateur.coupling.rules.context import OpContext, freeze_arguments
from secateur.coupling.rules.layer_units import COMPUTED_WEIGHT, bias_name, pass_each_unit
from secateur.coupling.rules.literals import convolution_groups
from secateur.coupling.rules.module_attributes import convolution_attributes
from secateur.coupling.rules.op_rule import OpRule, RuleTable


def convolution(op: OpContext) -> Tensor:
    """Read the channels; the filters are new units, or those of the input where the convolution is depthwise."""
    x, weight, bias, groups = op.activation("input"), op.args["weight"], op.args["bias"], op.args["groups"]
    if isinstance(weight, Tensor):
        frozen: Tensor = freeze_arguments(op, COMPUTED_WEIGHT)
        return frozen
    dim = x.dim() - len(weight.shape) + 1
    kernel = math.prod(weight.shape[2:])
    if labelled_axes(x) and dim not in labelled_axes(x):
        return pass_each_unit(op, x, dim, [weight, bias], kernel * weight.shape[1], weight.shape[2:])
    channels = op.axis_labels(x, dim)
    output_labels = op.axis_labels("weight", 0, produces=True)
    if bias is not None:
        op.couple(op.axis_labels("bias", 0), output_labels)
    positions = math.prod(op.shape) / len(output_labels) * kernel
    per_group = weight.shape[1]
    if removes_whole_groups(groups, per_group):
        _couple_groups(op, channels, output_labels, groups)
        op.count(positions * per_group, output_labels)
        return op.broadcast(output_labels, dim)
    inputs = op.axis_labels("weight", 1)
    op.couple(channels.view(groups, -1), inputs)
    filters = output_labels.view(groups, -1)
    op.couple(filters, filters[:1])
    op.read("input", dim, channels, weight.name if weight.is_plain else None, bias_name(bias), outputs=output_labels)
    op.count(positions, output_labels, inputs)
    return op.broadcast(output_labels, dim)


def _couple_groups(op: OpContext, channels: Tensor, output_labels: Tensor, groups: int) -> None:
    """Couple all channels and filters of a group of a convolution; depthwise: a channel is a group."""
    rows = channels.view(groups, -1)
    op.couple(rows, rows[:, :1])
    op.couple(output_labels.view(groups, -1), rows[:, :1])


def transposed_convolution(op: OpContext) -> Tensor:
    """Read the weight's first axis; its second makes units. A group of a grouped one is removed whole."""
    x, weight, groups = op.activation("input"), op.args["weight"], op.args["groups"]
    if isinstance(weight, Tensor):
        frozen: Tensor = freeze_arguments(op, COMPUTED_WEIGHT)
        return frozen
    dim = x.dim() - len(weight.shape) + 1
    kernel = math.prod(weight.shape[2:])
    if labelled_axes(x) and dim not in labelled_axes(x):
        return pass_each_unit(op, x, dim, [weight, op.args["bias"]], kernel * weight.shape[0], weight.shape[2:])
    channels = op.axis_labels(x, dim)
    inputs = op.axis_labels("weight", 0, produces=groups > 1)  # the filters of a group go with its channels
    op.couple(inputs, channels)
    positions = math.prod(x.shape) / len(channels) * kernel
    if groups == 1:
        output_labels = op.axis_labels("weight", 1, produces=True)
        op.read("input", dim, channels)
        op.count(positions, inputs, output_labels)
    else:
        rows = channels.view(groups, -1)
        op.couple(rows, rows[:, :1])
        output_labels = rows[:, :1].expand(groups, weight.shape[1]).reshape(-1)
        op.count(positions * weight.shape[1], inputs)
    if isinstance(op.args["bias"], Weight):
        op.couple(op.axis_labels("bias", 0), output_labels)
    return op.broadcast(output_labels, dim)


RULES: RuleTable = {
    "conv1d conv2d conv3d": OpRule(
        convolution,
        literals=convolution_groups,
        layer="convolution",
        attributes={nn.modules.conv._ConvNd: convolution_attributes},
    ),
    "conv_transpose1d conv_transpose2d conv_transpose3d": OpRule(
        transposed_convolution, literals=convolution_groups, layer="transposed convolution"
    ),
}
