"""Numbers written into the graph of an exported program that repeat the size of a tensor, and what they become."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from secateur.network.labels import operator_name
from secateur.network.program import arguments, with_argument

Mender = Callable[[dict[str, Any], tuple[int, ...], tuple[int, ...]], dict[str, Any]]


def _convolution(args: dict[str, Any], old: tuple[int, ...], new: tuple[int, ...]) -> dict[str, Any]:
    groups = args["groups"]
    whole = groups > 1 and groups >= old[1]  # whole groups went, as in network.contractions
    return {"groups": groups * new[0] // old[0]} if whole else {}


def _layer_norm(args: dict[str, Any], old: tuple[int, ...], new: tuple[int, ...]) -> dict[str, Any]:
    return {"normalized_shape": list(new)}


def _group_norm(args: dict[str, Any], old: tuple[int, ...], new: tuple[int, ...]) -> dict[str, Any]:
    groups = args["num_groups"]
    return {"num_groups": groups * new[0] // old[0]} if groups > 1 else {}


MENDERS: Mapping[str, Mender] = {
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}


def mended_literals(model: fx.GraphModule, slices: Mapping[str, Mapping[int, Tensor]]) -> dict[str, dict[str, Any]]:
    """New values by operator and argument, for operators whose weight is sliced."""
    found = {}
    for node in model.graph.nodes:
        mender = MENDERS.get(operator_name(node)) if node.op == "call_function" else None
        weight = arguments(node).get("weight") if mender else None
        if mender is None or not isinstance(weight, fx.Node) or str(weight.target) not in slices:
            continue
        old = tuple(model.get_parameter(str(weight.target)).shape)
        axes = slices[str(weight.target)]
        new = tuple(len(axes[axis]) if axis in axes else length for axis, length in enumerate(old))
        found[node.name] = mender(arguments(node), old, new)
    return {name: changed for name, changed in found.items() if changed}


def apply_literals(model: torch.nn.Module, literals: Mapping[str, Mapping[str, Any]]) -> None:
    """Write new values into the graph."""
    if not literals or not isinstance(model, fx.GraphModule):
        return
    for node in model.graph.nodes:
        for name, value in literals.get(node.name, {}).items():
            node.args, node.kwargs = with_argument(node, node.args, dict(node.kwargs), name, value)
    model.recompile()
