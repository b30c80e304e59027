"""Operators of a program: their names, arguments and modules."""

from typing import Any

from torch.fx import Node


def module_path(node: Node) -> str:
    """Return the path of the module whose forward called this operator, "" for the model itself."""
    stack = node.meta.get("nn_module_stack")
    return "" if not stack else str(list(stack.values())[-1][0])


def arguments(node: Node) -> dict[str, Any]:
    """Return an operator's arguments by the names of its schema, with defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(index): value for index, value in enumerate(node.args)}
    by_name = {arg.name: arg.default_value for arg in schema.arguments if arg.has_default_value()}
    by_name.update({arg.name: value for arg, value in zip(schema.arguments, node.args, strict=False)})
    return {**by_name, **node.kwargs}


def with_argument(
    node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Replace one argument of a call, by its name in the schema."""
    if name in kwargs:
        return args, {**kwargs, name: value}
    schema = node.target._schema  # type: ignore[union-attr]
    index = [arg.name for arg in schema.arguments].index(name)
    return (*args[:index], value, *args[index + 1 :]), kwargs


def recorded_shape(value: Any) -> tuple[Any, ...]:
    """Return the shape of a node's value, as the export recorded it; empty for values that are no tensors."""
    return tuple(getattr(value.meta.get("val"), "shape", ())) if isinstance(value, Node) else ()


def operator_name(node: Node) -> str:
    """Return the common name of an operator: `conv2d`, `scaled_dot_product_attention`."""
    schema = getattr(node.target, "_schema", None)
    return str(schema.name.split("::")[1]) if schema is not None else getattr(node.target, "__name__", str(node.target))
