"""What a plan would take on this machine: a table of its layers' times at several sizes, measured here.

Every linear layer and convolution is run at a quarter, a half and all of its inputs and outputs; between those its time
is interpolated. Whatever runs beside them (activations, normalisations, sums) is taken to shrink with the outputs of
the layer that it follows.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.data import Batch
from secateur.devices import synchronize_accelerator
from secateur.network.blocks import blocks_of, is_inside
from secateur.network.layers import Layer, layers_of
from secateur.network.masked import operand
from secateur.network.program import Handler, arguments, module_path, with_argument
from secateur.network.units import Network

VECTORS = {"AVX512": 16}
NARROWEST = 8
SHARES = (0.25, 0.5, 1.0)
RUNS = 5


def quick_multiple(network: Network) -> int:
    """Of which number multiples of channels are quick on this machine: as many as a vector of its processor holds.

    Less where half of the groups would have no size to choose but their own.
    """
    multiple = VECTORS.get(torch.backends.cpu.get_cpu_capability(), NARROWEST)
    multiple = multiple if network.device.type == "cpu" else NARROWEST
    sizes = sorted(group.size for group in network.groups)
    while multiple > 1 and 2 * multiple > sizes[len(sizes) // 2]:
        multiple //= 2
    return multiple


@dataclass(frozen=True, eq=False)
class Timed:
    """One layer's seconds.

    Args:
        inputs, outputs: the units of its entries.
        seconds: at a quarter, a half and all of its inputs (rows) and outputs (columns) (3, 3).
        beside: of the operators that follow it, at full size.
        block: the unit of the block in which it lies, where blocks are units; else -1.
    """

    inputs: Tensor
    outputs: Tensor
    seconds: Tensor
    beside: float
    block: int = -1

    def left(self, mask: Tensor) -> float:
        """The seconds of what stays."""
        if not mask[self.block]:
            return 0.0
        shares = [float(mask[units].double().mean()) for units in (self.inputs, self.outputs)]
        weights = torch.outer(*(_weights(share) for share in shares))
        return float((weights * self.seconds).sum().clamp_min(0)) + self.beside * shares[1]


def _weights(share: float) -> Tensor:
    """How much each measured size counts for a share between them."""
    below = 0 if share < SHARES[1] else 1
    part = (share - SHARES[below]) / (SHARES[below + 1] - SHARES[below])
    weights = torch.zeros(3, dtype=torch.float64)
    weights[below], weights[below + 1] = 1 - part, part
    return weights


@dataclass(frozen=True)
class LatencyTable:
    """The times of a network's layers on this machine, and of all that no layer is followed by."""

    layers: tuple[Timed, ...]
    rest: float

    def left(self, mask: Tensor) -> float:
        """The part of the dense network's time that is left under a mask (units + 1,)."""
        whole = torch.ones_like(mask)
        return self._seconds(mask) / max(self._seconds(whole), 1e-12)

    @property
    def dense_seconds(self) -> float:
        """The whole network's time for the batch."""
        return self.rest + sum(float(layer.seconds[-1, -1]) + layer.beside for layer in self.layers)

    def _seconds(self, mask: Tensor) -> float:
        return self.rest + sum(layer.left(mask) for layer in self.layers)


def measure_latency(network: Network, batch: Batch) -> LatencyTable:
    """Time every layer of a network on one batch, as it is and smaller."""
    layers = {layer.node: layer for layer in layers_of(network)}
    followed = _followed(network, layers)
    tables: dict[Node, Tensor] = {}
    beside: defaultdict[Node | None, float] = defaultdict(float)

    def timed(node: Node) -> Handler:
        def handler(target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if node in layers:
                tables[node] = _table(layers[node], target, args, kwargs)
            else:
                beside[followed[node]] += _seconds(lambda: target(*args, **kwargs))
            return target(*args, **kwargs)

        return handler

    handlers = {node: timed(node) for node in network.program.nodes if node.op == "call_function"}
    with torch.no_grad():
        network.program.forward(batch, handlers)
    found = [
        Timed(layer.inputs, layer.outputs, tables[node], beside[node], _block_unit(network, node))
        for node, layer in layers.items()
    ]
    return LatencyTable(tuple(found), beside[None])


def _block_unit(network: Network, node: Node) -> int:
    """The unit of the block in which an operator lies; -1 where it lies in none."""
    group = blocks_of(network)
    places = () if group is None else group.places
    inside = (at for at, path in enumerate(places) if is_inside(module_path(node), [path]))
    return next((group.offset + at for at in inside if group is not None), -1)


def _followed(network: Network, layers: dict[Node, Layer]) -> dict[Node, Node | None]:
    """For each operator the layer whose outputs it handles: that of its first input that follows one."""
    found: dict[Node, Node | None] = {}
    for node in network.program.nodes:
        inputs = (found.get(each) for each in node.all_input_nodes)
        found[node] = node if node in layers else next((each for each in inputs if each is not None), None)
    return found


def _table(layer: Layer, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    seconds = torch.zeros(len(SHARES), len(SHARES), dtype=torch.float64)
    for row, inputs in enumerate(SHARES):
        for column, outputs in enumerate(SHARES):
            smaller = _smaller(layer, args, kwargs, inputs, outputs)
            seconds[row, column] = _seconds(lambda: target(*smaller[0], **smaller[1]))  # noqa: B023 (called at once)
    return seconds


def _smaller(
    layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: float, outputs: float
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with only some of its inputs and outputs; of a convolution in groups, some of the groups."""
    if layer.groups > 1:
        inputs = outputs
    groups = max(1, round(layer.groups * outputs)) if layer.groups > 1 else 1
    each = len(layer.inputs) // layer.groups
    read = groups * each if layer.groups > 1 else max(1, round(each * inputs))
    made = (
        len(layer.outputs) // layer.groups * groups if layer.groups > 1 else max(1, round(len(layer.outputs) * outputs))
    )
    x = operand(layer, args, kwargs).narrow(layer.dim, 0, read)
    x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()
    changes: dict[str, Any] = {layer.argument: x}
    for name, value in _tensors(layer, args, kwargs).items():
        if value.dim() == 1:
            changes[name] = value[:made]
        else:
            plain = value if layer.inner == 1 else value.t()
            part = plain[:made] if layer.groups > 1 else plain[:made, :read]
            changes[name] = (part if layer.inner == 1 else part.t()).contiguous()
    if layer.groups > 1:
        changes["groups"] = groups
    for name, value in changes.items():
        args, kwargs = with_argument(layer.node, args, kwargs, name, value)
    return args, kwargs


def _tensors(layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """Its weight and its bias, by the names of the operator's arguments."""
    names = [argument.name for argument in layer.node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    known = arguments(layer.node)
    return {name: value for name, value in given.items()
            if isinstance(value, Tensor) and name != layer.argument and isinstance(known.get(name), Node)}  # fmt: skip


def _seconds(call: Callable[[], Any]) -> float:
    """The least of a few runs."""
    spent = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        synchronize_accelerator()
        spent.append(time.perf_counter() - start)
    return min(spent)
