"""Linear layers and convolutions as matrix products: their rows, and where a constant can be added."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.network import Network
from secateur.coupling.rules.registry import rule_of
from secateur.graph.operators import arguments, module_path
from secateur.graph.program import Program
from secateur.masking.batch_norms import has_own_statistics, norm_behind
from secateur.masking.layer_rows import (
    LayerPositions,
    RowPositions,
    WindowAxis,
    WindowPositions,
    _by_example,
    by_axis,
    padding_pairs,
)
from secateur.masking.parameter_copies import sole_parameter


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A linear layer or a convolution whose weight is a parameter that nothing else uses.

    Args:
        node: the operator.
        argument: the name of its input.
        dim: the input's axis of channels or features.
        weight: the name of its weight.
        inner: the axis of the weight that is contracted.
        groups: of a convolution.
        constant: the tensor that can take a constant added to the result, "" if there is none.
        kind: how: "bias", "running_mean" or "new", as of a `Fold`.
        inputs: for each input the number of its unit, -1 where it is frozen.
        outputs: for each entry of the result the number of its unit.
    """

    node: Node
    argument: str
    dim: int
    weight: str
    inner: int
    groups: int
    constant: str
    kind: str
    inputs: Tensor
    outputs: Tensor

    @property
    def name(self) -> str:
        """The path of the layer's module, or the name of its weight."""
        path, _, tensor_name = self.weight.rpartition(".")
        return (
            path if path and tensor_name == "weight" else self.weight if path else module_path(self.node) or self.weight
        )

    @property
    def is_convolution(self) -> bool:
        """True for convolutions."""
        return rule_of(self.node).layer == "convolution"

    def matrix(self, weight: Tensor) -> Tensor:
        """Return the weight as the matrices of its groups. (groups, outputs, features)"""
        plain = weight if self.inner == 1 else weight.t()
        matrix: Tensor = plain.flatten(1).unflatten(0, (self.groups, -1))
        return matrix

    def weight_of(self, matrix: Tensor, like: Tensor) -> Tensor:
        """Convert the matrices of the groups (groups, outputs, features) to the shape of the weight."""
        plain = matrix.flatten(0, 1)
        return plain.view_as(like) if self.inner == 1 else plain.t().view_as(like)

    def features(self, mask: Tensor) -> Tensor:
        """Return the kept features of the matrices. (groups, features)"""
        stays: Tensor = mask[self.inputs].repeat_interleave(self.kernel).view(self.groups, -1)
        return stays

    def image(self, size: Sequence[int]) -> list[int]:
        """Return the size of the images on which a kernel is an operator, for an input of a size."""
        return list(size)

    @property
    def results_per_place(self) -> int:
        """The number of output positions to which one input position contributes."""
        return 1

    @property
    def reads(self) -> bool:
        """True if the layer contracts over units; False if it processes each unit separately."""
        return self.groups == 1 or len(self.inputs) // self.groups > 1

    @property
    def features_of_group(self) -> int:
        """The number of values from which one output is computed."""
        return len(self.inputs) // self.groups * self.kernel

    @property
    def kernel(self) -> int:
        """The number of input positions from which one output of a convolution is computed."""
        weight: Any = arguments(self.node)["weight"] if self.is_convolution else None
        return 1 if weight is None else math.prod(weight.meta["val"].shape[2:])

    def positions(self, x: Tensor, examples: int) -> LayerPositions:
        """Return the rows of an input, from which any can be selected."""
        return self._windows(x) if self.is_convolution else RowPositions(_by_example(x, examples))

    def results(self, y: Tensor, examples: int) -> Tensor:
        """Return a result in the order of the rows. (examples, positions, outputs)"""
        rows: Tensor = y.flatten(2).transpose(1, 2) if self.is_convolution else _by_example(y, examples)
        return rows

    def _windows(self, x: Tensor) -> WindowPositions:
        """Return the windows of a convolution's input."""
        by_name = arguments(self.node)
        kernel = by_name["weight"].meta["val"].shape[2:]
        strides, dilations = (by_axis(by_name[name], len(kernel)) for name in ("stride", "dilation"))
        spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
        padding = padding_pairs(by_name["padding"], spans)
        axes = zip(x.shape[2:], kernel, strides, dilations, padding, strict=True)
        return WindowPositions(x, [WindowAxis(*of_axis) for of_axis in axes])


def layers_of(network: Network) -> list[LinearLayer]:
    """Return every layer that can be refitted, in the order in which they run.

    These are the layers that read units, those that process each unit or group of units separately, and those that
    read what is never cut but depends on what is.
    """
    layers = [layer for layer in (*_reading_layers(network), *_other_layers(network)) if _has_real_rows(layer)]
    position = network.program.position
    return sorted(layers, key=lambda layer: position[layer.node])


def _has_real_rows(layer: LinearLayer) -> bool:
    """Return whether a layer reads rows of real numbers, not one vector that is the same for all examples."""
    values = (arguments(layer.node).get(name) for name in (layer.argument, "weight"))
    recorded = [value.meta.get("val") if isinstance(value, Node) else None for value in values]
    is_complex = any(isinstance(value, Tensor) and value.is_complex() for value in recorded)
    return not is_complex and (not isinstance(recorded[0], Tensor) or recorded[0].dim() > 1)


def _reading_layers(network: Network) -> Iterator[LinearLayer]:
    for consumer in network.consumers:
        fold = consumer.fold
        if fold is not None:
            yield LinearLayer(
                consumer.node, consumer.argument, consumer.dim, fold.weight, fold.inner, fold.groups, fold.tensor,
                fold.kind, consumer.units, fold.outputs,
            )  # fmt: skip


def _other_layers(network: Network) -> Iterator[LinearLayer]:
    program = network.program
    solved = {consumer.node for consumer in network.consumers if consumer.fold is not None}
    unfolded = {consumer.node: consumer.units for consumer in network.consumers if consumer.argument == "input"}
    units = {(member.tensor, member.axis): member.units for member in network.members}
    for node in program.nodes:
        if rule_of(node).layer not in ("convolution", "linear") or node in solved:
            continue
        by_name = arguments(node)
        name, groups = sole_parameter(program, by_name["weight"]), by_name.get("groups", 1)
        if name is None:
            continue
        shape = program.state(name).shape
        outputs = units.get((name, 0), torch.full(shape[:1], -1))
        inputs = unfolded.get(node)
        if inputs is None and groups == 1 and (name, 1) in units:
            continue
        if inputs is None:  # a group's channels go with its filters
            first_outputs = outputs.view(groups, -1)[:, :1] if groups > 1 else torch.full((1, 1), -1)
            inputs = first_outputs.repeat(1, shape[1]).flatten()
        dim = 1 if rule_of(node).layer == "convolution" else len(by_name["input"].meta["val"].shape) - 1
        constant, kind = constant_sink(program, node, by_name["bias"], dim)
        yield LinearLayer(node, "input", dim, name, 1, groups, constant, kind, inputs, outputs)


def constant_sink(program: Program, node: Node, bias: Any, dim: int) -> tuple[str, str]:
    """Find the tensor to which a constant can be added that is added to an operator's result."""
    if bias is not None:
        name = sole_parameter(program, bias)
        return ("", "") if name is None else (name, "bias")
    norm = norm_behind(node) if dim == 1 else None  # others normalise another axis
    if norm is None or not has_own_statistics(norm):
        return "", ""
    return program.state_names.get(arguments(norm)["running_mean"], ""), "running_mean"
