"""Recurrent layers with ablated hidden units."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.graph.operators import arguments, with_argument
from secateur.graph.program import OpFn, Program


def masked_recurrence(
    program: Program,
    node: Node,
    argument: str,
    present: Tensor,
    target: OpFn,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run a recurrent layer or cell for each coalition separately, with weights that ignore absent units.

    Args:
        program: the program.
        node: the layer's or cell's operator.
        argument: "params", the list of a layer's weights, or "w_hh" of a cell.
        present: the kept hidden units (coalitions, hidden).
        target: the operator.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    results = []
    for at, mask in enumerate(present):
        by_name = dict(_arguments_by_name(node, args, kwargs))
        coalition_args = {
            name: _share_of_coalition(program, node, name, value, at, len(present)) for name, value in by_name.items()
        }
        weights = coalition_args[argument]
        if argument == "params":
            per_cell = 4 if coalition_args["has_biases"] else 2
            coalition_args[argument] = [
                _without_absent_columns(index, w, per_cell, mask, coalition_args) for index, w in enumerate(weights)
            ]
        else:
            coalition_args[argument] = weights * mask.to(weights)
        new_args, new_kwargs = args, kwargs
        for name, value in coalition_args.items():
            new_args, new_kwargs = with_argument(node, new_args, new_kwargs, name, value)
        results.append(target(*new_args, **new_kwargs))
    return results[0] if len(results) == 1 else _joined_results(program, node, results)


def _arguments_by_name(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _without_absent_columns(
    index: int, weight: Tensor, per_cell: int, mask: Tensor, coalition_args: dict[str, Any]
) -> Tensor:
    """Return a layer's weight without the columns of absent units."""
    directions = 2 if coalition_args["bidirectional"] else 1
    kind, index = index % per_cell, index // per_cell
    if kind == 1:
        return weight * mask.to(weight)
    if kind == 0 and index >= directions:
        return weight * mask.to(weight).repeat(directions)
    return weight


def _share_of_coalition(program: Program, node: Node, name: str, value: Any, at: int, coalitions: int) -> Any:
    """Return one coalition's share of an argument."""
    if coalitions == 1:
        return value
    recorded_value: Any = arguments(node).get(name)
    if isinstance(value, list | tuple) and name == "hx":
        return [_chunk(program, r, v, at, coalitions) for r, v in zip(recorded_value, value, strict=True)]
    return _chunk(program, recorded_value, value, at, coalitions) if name in ("input", "hx") else value


def _chunk(program: Program, recorded_value: Any, value: Tensor, at: int, coalitions: int) -> Tensor:
    axis = program.batch_axis(recorded_value.meta["val"])
    return value if axis is None else value.chunk(coalitions, axis)[at]


def _joined_results(program: Program, node: Node, results: list[Any]) -> Any:
    recorded_values = node.meta["val"]
    if isinstance(results[0], Tensor):
        return torch.cat(results, program.batch_axis(recorded_values) or 0)
    return tuple(
        torch.cat(shares, program.batch_axis(kind) or 0)
        for kind, shares in zip(recorded_values, zip(*results, strict=True), strict=True)
    )
