"""Units of layers with a weight: linear layers, products, convolutions."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from secateur.coupling.labels import Weight, labelled_axes
from secateur.coupling.rules.context import OpContext, freeze_arguments

SHARED = "the same weights serve every unit"
CROSSED = "two kinds of units cross"
COMPUTED_WEIGHT = "its weight is computed from other tensors"


def couple_layer(
    op: OpContext, x_name: str, weight_name: str, contracted_axis: int, inner_axis: int, outer_axis: int
) -> Tensor:
    """Read an axis of the input; the other axis of the weight makes units.

    Args:
        op: the operator.
        x_name: the name of its input.
        weight_name: the name of its weight.
        contracted_axis: the axis of the input that is contracted, from the end; the result's units lie along it, too.
        inner_axis: the axis of the weight that is contracted.
        outer_axis: the other axis of the weight.
    """
    x, weight = op.activation(x_name), op.args[weight_name]
    if isinstance(weight, Tensor):
        frozen: Tensor = freeze_arguments(op, COMPUTED_WEIGHT)
        return frozen
    bias_argument = "bias" if "bias" in op.args else "self" if (weight_name, x_name) == ("mat2", "mat1") else None
    bias = op.args.get(bias_argument) if bias_argument else None
    dim = contracted_axis % x.dim()
    if labelled_axes(x) and dim not in labelled_axes(x):
        return pass_each_unit(op, x, dim, [weight, bias], weight.shape[inner_axis])
    output_labels = op.axis_labels(weight_name, outer_axis, produces=True)
    input_labels = op.axis_labels(x, dim)
    weight_labels = op.axis_labels(weight, inner_axis, like=input_labels)
    op.couple(weight_labels, input_labels)
    if isinstance(bias, Weight | Tensor):
        op.couple(op.axis_labels(bias, -1), output_labels)
    name = weight.name if contracted_axis == -1 and weight.is_plain else None
    op.read(x_name, dim, input_labels, name, bias_name(bias), inner_axis, output_labels)
    op.count(math.prod(op.shape) / len(output_labels), output_labels, weight_labels)
    return op.broadcast(output_labels, contracted_axis)


def bias_name(bias: Any) -> str | None:
    """Return the name of a bias that is a parameter as it stands; "computed" for any other, None without one."""
    if bias is None:
        return None
    return bias.name if isinstance(bias, Weight) and bias.is_plain else "computed"


def pass_each_unit(
    op: OpContext, x: Tensor, dim: int, weights: Sequence[Any], length: int, kernel: Sequence[int] = ()
) -> Tensor:
    """Pass units of an operator that serves each of them alike, and freeze its weights.

    Args:
        op: the operator.
        x: the labels of its input.
        dim: the axis of the input that it contracts, along which there are no units.
        weights: its weights and biases.
        length: how many entries it multiplies for each entry of its result.
        kernel: the size of its windows along the axes behind dim.
    """
    for weight in weights:
        if isinstance(weight, Weight | Tensor):
            op.freeze(weight, SHARED)
    axes = sorted(labelled_axes(x))
    is_changed = any(at >= len(op.shape) or x.shape[at] != op.shape[at] for at in axes)
    is_changed = is_changed or any(at > dim and kernel[at - dim - 1] > 1 for at in axes if kernel)
    if len(axes) > 1 or is_changed:
        op.freeze(x, "is changed along these units" if is_changed else CROSSED)
        frozen: Tensor = op.frozen()
        return frozen
    units = op.axis_labels(x, axes[0])
    op.count(math.prod(op.shape) * length / len(units), units)
    return op.broadcast(units, axes[0])
