"""The call of a layer with only some of its inputs and outputs."""

from typing import Any

from torch import Tensor
from torch.fx import Node

from secateur.graph.memory_formats import as_channels_last, is_channels_last
from secateur.graph.operators import arguments, with_argument
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.operands import operand


def smaller_call(
    layer: LinearLayer, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: int, outputs: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with only some of the inputs and outputs, in the layouts that they have.

    Args:
        layer: the layer; of a convolution in groups, some of the groups are taken.
        args: the arguments of its call.
        kwargs: the other arguments.
        inputs: the number of inputs.
        outputs: the number of outputs.
    """
    groups = layer.groups * outputs // len(layer.outputs) if layer.groups > 1 else 1
    inputs = len(layer.inputs) // layer.groups * groups if layer.groups > 1 else inputs
    x = operand(layer, args, kwargs)
    changes: dict[str, Any] = {layer.argument: _in_layout_of(x.narrow(layer.dim, 0, inputs), x)}
    for name, value in weights_of(layer, args, kwargs).items():
        if value.dim() == 1:
            changes[name] = value[:outputs]
        else:
            matrix = value if layer.inner == 1 else value.t()
            smaller = matrix[:outputs] if layer.groups > 1 else matrix[:outputs, :inputs]
            changes[name] = _in_layout_of(smaller if layer.inner == 1 else smaller.t(), value)
    if layer.groups > 1:
        changes["groups"] = groups
    for name, value in changes.items():
        args, kwargs = with_argument(layer.node, args, kwargs, name, value)
    return args, kwargs


def _in_layout_of(value: Tensor, like: Tensor) -> Tensor:
    """Return a tensor in the layout of another one."""
    return as_channels_last(value) if is_channels_last(like) else value.contiguous()


def weights_of(layer: LinearLayer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weight and the bias of a layer's call, by the names of the operator's arguments."""
    names = [argument.name for argument in layer.node.target._schema.arguments]  # type: ignore[union-attr]
    by_name = {**dict(zip(names, args, strict=False)), **kwargs}
    traced_arguments = arguments(layer.node)
    return {
        name: value for name, value in by_name.items()
        if isinstance(value, Tensor) and name != layer.argument and isinstance(traced_arguments.get(name), Node)
    }  # fmt: skip
