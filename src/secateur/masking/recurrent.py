"""Recurrent layers whose absent hidden units are not heard of by the others."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.graph.program import OpFn, Program, arguments, with_argument


def masked_recurrence(
    program: Program,
    node: Node,
    argument: str,
    present: Tensor,
    target: OpFn,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run a recurrent layer or cell whose weights do not read absent units, for each coalition by itself.

    Args:
        program: the program.
        node: the layer's or cell's operator.
        argument: "params", the list of a layer's weights, or "w_hh" of a cell.
        present: which hidden units stay (coalitions, hidden).
        target, args, kwargs: the call.
    """
    results = []
    for at, mask in enumerate(present):
        given = dict(_named(node, args, kwargs))
        part = {name: _share(program, node, name, value, at, len(present)) for name, value in given.items()}
        weights = part[argument]
        if argument == "params":
            per_cell = 4 if part["has_biases"] else 2
            part[argument] = [_deaf(place, w, per_cell, mask, part) for place, w in enumerate(weights)]
        else:
            part[argument] = weights * mask.to(weights)
        new_args, new_kwargs = args, kwargs
        for name, value in part.items():
            new_args, new_kwargs = with_argument(node, new_args, new_kwargs, name, value)
        results.append(target(*new_args, **new_kwargs))
    return results[0] if len(results) == 1 else _joined(program, node, results)


def _named(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _deaf(place: int, weight: Tensor, per_cell: int, mask: Tensor, part: dict[str, Any]) -> Tensor:
    """A layer's weight that reads nothing of absent units."""
    directions = 2 if part["bidirectional"] else 1
    kind, index = place % per_cell, place // per_cell
    if kind == 1:
        return weight * mask.to(weight)
    if kind == 0 and index >= directions:
        return weight * mask.to(weight).repeat(directions)
    return weight


def _share(program: Program, node: Node, name: str, value: Any, at: int, coalitions: int) -> Any:
    """One coalition's part of an argument."""
    if coalitions == 1:
        return value
    recorded: Any = arguments(node).get(name)
    if isinstance(value, list | tuple) and name == "hx":
        return [_chunk(program, r, v, at, coalitions) for r, v in zip(recorded, value, strict=True)]
    return _chunk(program, recorded, value, at, coalitions) if name in ("input", "hx") else value


def _chunk(program: Program, recorded: Any, value: Tensor, at: int, coalitions: int) -> Tensor:
    axis = program.batch_axis(recorded.meta["val"])
    return value if axis is None else value.chunk(coalitions, axis)[at]


def _joined(program: Program, node: Node, results: list[Any]) -> Any:
    recorded = node.meta["val"]
    if isinstance(results[0], Tensor):
        return torch.cat(results, program.batch_axis(recorded) or 0)
    return tuple(
        torch.cat(parts, program.batch_axis(kind) or 0)
        for kind, parts in zip(recorded, zip(*results, strict=True), strict=True)
    )
