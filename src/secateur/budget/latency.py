"""What a plan would take on this machine: a table of its layers' times at several sizes, measured here.

Every linear layer and convolution is run with numbers of inputs and outputs that fill the kernels of the device;
between those its time is a staircase: outputs count up to the next number that fills them. Whatever runs beside the
layers (activations, normalisations, sums) is taken to shrink with the outputs of the layer that it follows.
"""

import bisect
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_flatten

from secateur.budget.device import AUTO, channel_step
from secateur.budget.timings import Timings
from secateur.data import Batch
from secateur.network.blocks import blocks_of, is_inside
from secateur.network.layers import Layer, layers_of
from secateur.network.layouts import as_channels_last, is_channels_last
from secateur.network.masked import operand
from secateur.network.program import Handler, arguments, module_path, with_argument
from secateur.network.units import Network

VECTORS = {"AVX512": 16}
NARROWEST = 8


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
        seconds: by how many of its inputs (rows) and outputs (columns) there are.
        beside: of the operators that follow it, at full size.
        rows, columns: these numbers, ascending; the last ones are all inputs and all outputs.
        step: outputs between these numbers count up to multiples of this, as kernels run in blocks.
        block: the unit of the block in which it lies, where blocks are units; else -1.
        name: the layer's.
    """

    inputs: Tensor
    outputs: Tensor
    seconds: Tensor
    beside: float
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    step: int = 1
    block: int = -1
    name: str = ""
    _known: dict[tuple[int, int], float] = field(default_factory=dict, repr=False)

    def left(self, mask: Tensor) -> float:
        """The seconds of what stays."""
        if not mask[self.block]:
            return 0.0
        read, made = (int(mask[units].sum()) for units in (self.inputs, self.outputs))
        if (read, made) not in self._known:
            self._known[read, made] = self._seconds_of(read, made)
        return self._known[read, made]

    def _seconds_of(self, read: int, made: int) -> float:
        filled = min(-(-made // self.step) * self.step, self.columns[-1])
        weights = torch.outer(_weights(read, self.rows), _weights(filled, self.columns))
        return float((weights * self.seconds).sum().clamp_min(0)) + self.beside * made / max(self.columns[-1], 1)


def _weights(count: int, measured: Sequence[int]) -> Tensor:
    """How much each measured size counts for one between them, or in line with the least two below these."""
    weights = torch.zeros(len(measured), dtype=torch.float64)
    if len(measured) == 1:
        weights[0] = count / measured[0]
        return weights
    above = min(max(bisect.bisect_left(measured, count), 1), len(measured) - 1)
    share = (count - measured[above - 1]) / (measured[above] - measured[above - 1])
    weights[above - 1], weights[above] = 1 - share, share
    return weights


def measured_sizes(size: int, step: int) -> tuple[int, ...]:
    """The sizes at which a layer is measured: multiples of the step next to the quarters, and all.

    Example:
        >>> measured_sizes(64, 16), measured_sizes(40, 16), measured_sizes(16, 16), measured_sizes(3, 16)
        ((16, 32, 48, 64), (16, 32, 40), (4, 8, 12, 16), (1, 2, 3))
    """
    unit = step if size > step else 1
    quarters = {max(unit, round(size * share / unit) * unit) for share in (0.25, 0.5, 0.75)}
    return tuple(sorted({*(quarter for quarter in quarters if quarter < size), size}))


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
    """Time every layer of a network on one batch, as it is and smaller, and all other operators as they are.

    Layers run in the layout and on as many threads as the network does. Their times are kept on disk for the next run
    (`secateur.budget.timings`).

    Example:
        >>> import secateur as sc
        >>> from secateur.data import as_batches
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> table = measure_latency(sc.trace(model, torch.randn(2, 4)), as_batches(torch.randn(2, 4))[0])
        >>> len(table.layers), table.dense_seconds > 0
        (2, True)
    """
    layers = {layer.node: layer for layer in layers_of(network)}
    followed, step = _followed(network, layers), channel_step(AUTO, network.device).size
    timings = Timings(network.device)
    tables: dict[Node, tuple[Tensor, tuple[int, ...], tuple[int, ...]]] = {}
    beside: defaultdict[Node | None, float] = defaultdict(float)

    def timed(node: Node) -> Handler:
        def handler(target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if node in layers:
                tables[node] = _measured_table(layers[node], step, timings, target, args, kwargs)
            else:
                call = partial(target, *args, **kwargs)
                beside[followed[node]] += timings.seconds(_description(target, args, kwargs), call)
            return target(*args, **kwargs)

        return handler

    handlers = {node: timed(node) for node in network.program.nodes if node.op == "call_function"}
    with torch.no_grad():
        network.program.forward(batch, handlers)
    timings.save()
    measured = [
        Timed(layer.inputs, layer.outputs, seconds, beside[node], rows, columns, step, _block_unit(network, node),
              layer.name)
        for node, layer in layers.items()
        for seconds, rows, columns in (tables[node],)
    ]  # fmt: skip
    return LatencyTable(tuple(measured), beside[None])


def _description(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """An operator with all that its time depends on: shapes, types and layouts of tensors, and its other arguments."""
    leaves, form = tree_flatten((args, kwargs))
    words = [
        f"{value.dtype}{tuple(value.shape)}{tuple(value.stride())}" if isinstance(value, Tensor) else repr(value)
        for value in leaves
    ]
    return f"{target} {form} {' '.join(words)}"


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


def _measured_table(
    layer: Layer, step: int, timings: Timings, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    """A layer's seconds by numbers of inputs (rows) and outputs (columns), and these numbers."""
    columns = measured_sizes(len(layer.outputs), step) if layer.groups == 1 else _sizes_of_groups(layer, step)
    rows = measured_sizes(len(layer.inputs), step) if layer.groups == 1 else (len(layer.inputs),)
    seconds = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    for row, read in enumerate(rows):
        for column, made in enumerate(columns):
            smaller = _smaller(layer, args, kwargs, read, made)
            call = partial(target, *smaller[0], **smaller[1])
            seconds[row, column] = timings.seconds(_description(target, *smaller), call)
    if layer.groups > 1:  # inputs go with the outputs of their group, so that their number says nothing more
        return seconds.expand(2, -1), (0, len(layer.inputs)), columns
    return seconds, rows, columns


def _sizes_of_groups(layer: Layer, step: int) -> tuple[int, ...]:
    """Numbers of outputs that are whole groups of a grouped convolution."""
    filters = len(layer.outputs) // layer.groups
    return tuple(groups * filters for groups in measured_sizes(layer.groups, step))


def _smaller(
    layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], read: int, made: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with only some of its inputs and outputs, in the layouts that they have; of a convolution in groups,
    with some of the groups."""
    groups = layer.groups * made // len(layer.outputs) if layer.groups > 1 else 1
    read = len(layer.inputs) // layer.groups * groups if layer.groups > 1 else read
    x = operand(layer, args, kwargs)
    changes: dict[str, Any] = {layer.argument: _laid_out(x.narrow(layer.dim, 0, read), x)}
    for name, value in _tensors(layer, args, kwargs).items():
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


def _tensors(layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """Its weight and its bias, by the names of the operator's arguments."""
    names = [argument.name for argument in layer.node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    known = arguments(layer.node)
    return {name: value for name, value in given.items()
            if isinstance(value, Tensor) and name != layer.argument and isinstance(known.get(name), Node)}  # fmt: skip
