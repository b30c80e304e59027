"""The features that the last layer of a network reads, of the dense network and of the cut one.

A cut network that gives its last layer what the dense network gives its own has the same outputs. These features are
many numbers for each example where class scores are few, so that they say more about it (Wang et al. 2022).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Node

from secateur.coupling.network import Network
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import operator_name
from secateur.masking.linear_layers import layers_of
from secateur.surgery.recipe import Recipe

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
PRODUCTS = ("matmul", "mm", "bmm", "einsum", "bilinear")  # operators that may compute a last layer without a module


@dataclass(frozen=True)
class HeadPaths:
    """The last linear layer or convolution of a network, which is a module and reads all of the dense one's features.

    Args:
        dense: its path in the dense model.
        small: its path in the cut model.
    """

    dense: str
    small: str


def head_paths(dense: nn.Module, small: nn.Module, network: Network, recipe: Recipe) -> HeadPaths | None:
    """Find the last layer of both networks, None where there is none whose features can be compared.

    Where other outputs, such as those of a second head, do not come of it, its features say nothing of them.
    Where some of its inputs are removed, the others cannot all be what they are in the dense network and still stand in
    for those, so that features are compared only if all of them are kept.

    Args:
        dense: the dense model.
        small: the cut model.
        network: the trace of the dense model.
        recipe: the recipe of the cut.
    """
    nodes = [node for node in network.program.nodes if rule_of(node).layer or operator_name(node) in PRODUCTS]
    last_layer = next((layer for layer in layers_of(network) if nodes and layer.node is nodes[-1]), None)
    if last_layer is None or last_layer.groups != 1 or not _all_outputs_follow(network, last_layer.node):
        return None
    stays = recipe.slices.get(last_layer.weight, {}).get(last_layer.inner)
    path = last_layer.weight.rpartition(".")[0]
    paths = HeadPaths(path, recipe.renamed(path))
    modules = (dict(dense.named_modules()).get(paths.dense), dict(small.named_modules()).get(paths.small))
    is_whole = stays is None or len(stays) == len(last_layer.inputs)
    has_modules = all(isinstance(module, (nn.Linear, *CONVOLUTIONS)) for module in modules)
    return paths if path and is_whole and has_modules else None


def _all_outputs_follow(network: Network, node: Node) -> bool:
    """Return whether all floating-point outputs of a network are computed from an operator's result."""
    following = {node}
    for other in network.program.nodes:
        if not following.isdisjoint(other.all_input_nodes):
            following.add(other)
    values = {output: output.meta.get("val") for output in network.program.output_nodes}
    return all(
        output in following
        for output, value in values.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    )


@contextmanager
def recorded_inputs(model: nn.Module, path: str | None) -> Iterator[list[Tensor]]:
    """Record what a module reads, call by call, with the features as the last axis.

    Args:
        model: the model.
        path: the module's path; nothing is recorded for None.
    """
    inputs: list[Tensor] = []
    if path is None:
        yield inputs
        return
    module = model.get_submodule(path)
    axis = 1 if isinstance(module, CONVOLUTIONS) else -1

    def record(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.extend(tensor.movedim(axis, -1) for tensor in args[:1])

    handle = module.register_forward_pre_hook(record)
    try:
        yield inputs
    finally:
        handle.remove()


def feature_error(features: Tensor, dense: Tensor) -> Tensor:
    """Compute the mean squared error of features, as a fraction of the variance of the dense network's.

    Args:
        features: the cut network's, (..., features).
        dense: the dense network's, of the same shape.

    Examples:
        >>> dense = torch.tensor([[1.0, 5.0], [3.0, 9.0]])
        >>> round(float(feature_error(dense + 1, dense)), 6)
        0.4
    """
    rows = dense.flatten(0, -2)  # (rows, features)
    spread = rows.var(0, correction=0).mean()
    return (features.flatten(0, -2) - rows).square().mean() / spread.clamp_min(torch.finfo(rows.dtype).eps)
