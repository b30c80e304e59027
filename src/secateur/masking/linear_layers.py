"""Linear layers and convolutions as matrix products: the rows that they multiply, and where a constant can go."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from secateur.coupling.network import Network
from secateur.errors import DataError
from secateur.graph.program import Program, arguments, module_path, operator_name

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
NORMS = ("batch_norm", "_native_batch_norm_legit_no_training")


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
        path, _, own = self.weight.rpartition(".")
        return path if path and own == "weight" else self.weight if path else module_path(self.node) or self.weight

    @property
    def is_convolution(self) -> bool:
        return operator_name(self.node) in CONVOLUTIONS

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as the matrices of its groups. (groups, outputs, features)"""
        plain = weight if self.inner == 1 else weight.t()
        matrix: Tensor = plain.flatten(1).unflatten(0, (self.groups, -1))
        return matrix

    def weight_of(self, matrix: Tensor, like: Tensor) -> Tensor:
        """The weight that those matrices (groups, outputs, features) are."""
        plain = matrix.flatten(0, 1)
        return plain.view_as(like) if self.inner == 1 else plain.t().view_as(like)

    def features(self, mask: Tensor) -> Tensor:
        """Which features of the matrices stay. (groups, features)"""
        stays: Tensor = mask[self.inputs].repeat_interleave(self.kernel).view(self.groups, -1)
        return stays

    def image(self, size: Sequence[int]) -> list[int]:
        """The size of the images whose norm a kernel is an operator on, for an input of a size."""
        return list(size)

    @property
    def results_per_place(self) -> int:
        """How many places of the result one place of the input is spread over."""
        return 1

    @property
    def reads(self) -> bool:
        """Whether it contracts over units, so that they can go and it stays: not where it handles each by itself."""
        return self.groups == 1 or len(self.inputs) // self.groups > 1

    @property
    def features_of_group(self) -> int:
        """How many values one result is made of."""
        return len(self.inputs) // self.groups * self.kernel

    @property
    def kernel(self) -> int:
        """How many places of its input one result of a convolution sees."""
        weight: Any = arguments(self.node)["weight"] if self.is_convolution else None
        return 1 if weight is None else math.prod(weight.meta["val"].shape[2:])

    def places(self, x: Tensor, examples: int) -> "LayerPositions":
        """The rows of an input, of which any can be taken."""
        return LayerPositions(self._windows(x) if self.is_convolution else _by_example(x, examples))

    def results(self, y: Tensor, examples: int) -> Tensor:
        """A result in the order of the rows. (examples, places, outputs)"""
        rows: Tensor = y.flatten(2).transpose(1, 2) if self.is_convolution else _by_example(y, examples)
        return rows

    def _windows(self, x: Tensor) -> Tensor:
        """What each place of a convolution's result sees, without memory. (examples, channels, *places, *kernel)"""
        given = arguments(self.node)
        kernel = given["weight"].meta["val"].shape[2:]
        rank = len(kernel)
        stride, dilation = (by_axis(given[name], rank) for name in ("stride", "dilation"))
        spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
        pairs = padding_pairs(given["padding"], spans)
        padded = F.pad(x, [size for pair in reversed(pairs) for size in pair])
        for axis, (span, step) in enumerate(zip(spans, stride, strict=True)):
            padded = padded.unfold(2 + axis, span, step)
        for axis, step in enumerate(dilation):
            padded = padded.movedim(axis - rank, -1)[..., ::step].movedim(-1, axis - rank)
        return padded


@dataclass(frozen=True)
class LayerPositions:
    """The rows of a matrix product, as a view: windows (examples, channels, *places, *kernel) or (examples, places,
    features)."""

    view: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes of places."""
        if self.view.dim() == 3:
            return tuple(self.view.shape[1:2])
        return tuple(self.view.shape[2 : 2 + (self.view.dim() - 2) // 2])

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def rows(self, chosen: Tensor, groups: int) -> Tensor:
        """Some places of every example. (examples * chosen, groups, features)"""
        if self.view.dim() == 3:
            picked = self.view[:, chosen]
        else:
            at: Any = (slice(None), *torch.unravel_index(chosen, self.shape))
            picked = self.view.movedim(1, 1 + len(self.shape))[at].flatten(2)  # (examples, chosen, features)
        rows: Tensor = picked.flatten(0, 1).unflatten(1, (groups, -1))
        return rows


def _by_example(x: Tensor, examples: int) -> Tensor:
    """Rows of examples; where the first axis holds several for each, those of one example lie side by side."""
    if examples == 1:
        return x.reshape(1, -1, x.shape[-1])
    if x.dim() == 2 and len(x) % examples == 0:
        rows: Tensor = x.unflatten(0, (examples, -1))
        return rows
    return x.flatten(1, -2) if x.dim() > 2 else x[:, None]


def by_axis(value: Any, rank: int) -> list[int]:
    """An option of a convolution, which may be one number for all axes, for each axis of its kernel."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def padding_pairs(padding: Any, spans: list[int]) -> list[tuple[int, int]]:
    """The entries that a convolution adds before and behind each axis.

    Args:
        padding: as torch's operators take it: numbers, or "same" or "valid".
        spans: how many entries of each axis the kernel spans, dilation included.
    """
    if padding == "same":
        return [((span - 1) // 2, span - 1 - (span - 1) // 2) for span in spans]
    sizes = [0] * len(spans) if padding == "valid" else by_axis(padding, len(spans))
    return [(size, size) for size in sizes]


def finite(weight: Tensor, name: str) -> Tensor:
    """The weight itself.

    Raises:
        DataError: it holds NaN or infinity.
    """
    if not bool(torch.isfinite(weight).all()):
        bad = int((~torch.isfinite(weight)).sum())
        raise DataError(f"{name} has {bad} entries that are NaN or infinite; load weights that were trained to an end")
    return weight


def layers_of(network: Network) -> list[LinearLayer]:
    """Every layer that can be solved for, in the order in which they run: those that read units; those that handle each
    unit, or group of them, by itself; and those that read what is never cut, but may be fed by what is."""
    found = [layer for layer in (*_readers(network), *_others(network)) if _has_rows(layer)]
    position = network.program.position
    return sorted(found, key=lambda layer: position[layer.node])


def _has_rows(layer: LinearLayer) -> bool:
    """Whether a layer reads rows, and not one vector that is the same for all examples."""
    value = arguments(layer.node)[layer.argument]
    recorded = value.meta.get("val") if isinstance(value, Node) else None
    return not isinstance(recorded, Tensor) or recorded.dim() > 1


def _readers(network: Network) -> Iterator[LinearLayer]:
    for consumer in network.consumers:
        fold = consumer.fold
        if fold is not None:
            yield LinearLayer(
                consumer.node, consumer.argument, consumer.dim, fold.weight, fold.inner, fold.groups, fold.tensor,
                fold.kind, consumer.units, fold.outputs,
            )  # fmt: skip


def _others(network: Network) -> Iterator[LinearLayer]:
    program = network.program
    solved = {consumer.node for consumer in network.consumers if consumer.fold is not None}
    unfolded = {consumer.node: consumer.units for consumer in network.consumers if consumer.argument == "input"}
    units = {(member.tensor, member.axis): member.units for member in network.members}
    for node in program.nodes:
        if node.op != "call_function" or operator_name(node) not in (*CONVOLUTIONS, "linear") or node in solved:
            continue
        given = arguments(node)
        weight, groups = given["weight"], given.get("groups", 1)
        name = program.state_names.get(weight)
        if name is None or len(weight.users) > 1:
            continue
        shape = program.state(name).shape
        outputs = units.get((name, 0), torch.full(shape[:1], -1))
        inputs = unfolded.get(node)
        if inputs is None and groups == 1 and (name, 1) in units:
            continue
        if inputs is None:  # a group's channels go with its filters
            own = outputs.view(groups, -1)[:, :1] if groups > 1 else torch.full((1, 1), -1)
            inputs = own.repeat(1, shape[1]).flatten()
        dim = 1 if operator_name(node) in CONVOLUTIONS else len(given["input"].meta["val"].shape) - 1
        constant, kind = constant_sink(program, node, given["bias"], dim)
        yield LinearLayer(node, "input", dim, name, 1, groups, constant, kind, inputs, outputs)


def constant_sink(program: Program, node: Node, bias: Any, dim: int) -> tuple[str, str]:
    """Where a constant can go that is added to an operator's result."""
    if bias is not None:
        return (program.state_names.get(bias, ""), "bias") if len(bias.users) == 1 else ("", "")
    norm = norm_behind(node) if dim == 1 else None  # others normalise another axis
    mean = None if norm is None else arguments(norm)["running_mean"]
    return ("", "") if mean is None or len(mean.users) > 1 else (program.state_names.get(mean, ""), "running_mean")


def norm_behind(node: Node) -> Node | None:
    """The batch norm that alone uses an operator's result and keeps running statistics, if there is one."""
    users = list(node.users)
    if (
        len(users) != 1
        or operator_name(users[0]) not in NORMS
        or not isinstance(arguments(users[0]).get("running_mean"), Node)
    ):
        return None
    return users[0]


def norms_of(network: Network) -> dict[Node, Tensor]:
    """Batch norms behind what makes units, with the units along their axis, -1 where it is frozen."""
    units = {member.tensor: member.units for member in network.members if member.axis == 0}
    found = {}
    for node in network.program.nodes:
        if node.op == "call_function" and operator_name(node) in NORMS:
            given = arguments(node)
            nodes = (given.get(name) for name in ("weight", "running_mean"))
            names = [network.program.state_names.get(each, "") for each in nodes if isinstance(each, Node)]
            own = next((units[name] for name in names if name in units), None)
            if own is not None and given.get("running_mean") is not None:
                found[node] = own
    return found
