"""A layer with only some of its inputs and outputs, as the call that a program makes."""

from typing import Any

from torch import Tensor
from torch.fx import Node

from secateur.graph.memory_formats import as_channels_last, is_channels_last
from secateur.graph.operators import arguments, with_argument
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.operands import operand


def smaller_call(
    layer: LinearLayer, args: tuple[Any, ...], kwargs: dict[str, Any], read: int, made: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with only some of its inputs and outputs, in the layouts that they have; of a convolution in groups,
    with some of the groups."""
    groups = layer.groups * made // len(layer.outputs) if layer.groups > 1 else 1
    read = len(layer.inputs) // layer.groups * groups if layer.groups > 1 else read
    x = operand(layer, args, kwargs)
    changes: dict[str, Any] = {layer.argument: _laid_out(x.narrow(layer.dim, 0, read), x)}
    for name, value in weights_of(layer, args, kwargs).items():
        if value.dim() == 1:
            changes[name] = value[:made]
        else:
            plain = value if layer.inner == 1 else value.t()
            part = plain[:made] if layer.groups > 1 else plain[:made, :read]
            changes[name] = _laid_out(part if layer.inner == 1 else part.t(), value)
    if layer.groups > 1:
        changes["groups"] = groups
    for name, value in changes.items():
        args, kwargs = with_argument(layer.node, args, kwargs, name, value)
    return args, kwargs


def _laid_out(value: Tensor, like: Tensor) -> Tensor:
    """A tensor in the layout of another one."""
    return as_channels_last(value) if is_channels_last(like) else value.contiguous()


def weights_of(layer: LinearLayer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """Its weight and its bias, by the names of the operator's arguments."""
    names = [argument.name for argument in layer.node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    known = arguments(layer.node)
    return {name: value for name, value in given.items()
            if isinstance(value, Tensor) and name != layer.argument and isinstance(known.get(name), Node)}  # fmt: skip
