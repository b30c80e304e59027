"""What a plan would take on this machine: a table of its layers' times at several sizes, measured here.

Every linear layer and convolution is run with numbers of inputs and outputs that fill the kernels of the device;
between those its time is a staircase: outputs count up to the next number that fills them. Whatever runs beside the
layers (activations, normalisations, sums) is taken to shrink with the outputs of the layer that it follows.
"""

import bisect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_flatten, tree_leaves

from secateur.coupling.network import Network
from secateur.coupling.residual_blocks import blocks_of, is_inside
from secateur.data.batch import Batch
from secateur.evaluation.channel_steps import AUTO, channel_step
from secateur.evaluation.onnx_layers import layer_seconds
from secateur.evaluation.runtimes import EAGER, ONNXRUNTIME, check_runtime
from secateur.evaluation.saved_timings import Timings
from secateur.evaluation.smaller_layers import smaller_call, weights_of
from secateur.evaluation.timing import call_seconds
from secateur.graph.operators import module_path
from secateur.graph.program import OpOverride
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.masking.operands import operand


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


def measure_latency(network: Network, batch: Batch, runtime: str = EAGER, total: float | None = None) -> LatencyTable:
    """Time every layer of a network on one batch, as it is and smaller, and all other operators as they are.

    Layers run in the layout and on as many threads as the network does. Their times are kept on disk for the next run
    (`secateur.evaluation.saved_timings`).

    Args:
        network: the network.
        batch: what it runs on.
        runtime: "eager" for torch's kernels, or "onnxruntime", which is timed layer by layer: operators between layers
            are fused with these there, so that what the whole network takes beyond its layers is shared out by the
            numbers of entries that such operators make.
        total: seconds of the whole network in onnxruntime; by default nothing is taken to go beyond its layers.

    Raises:
        OptionError: onnxruntime is not installed.

    Example:
        >>> import secateur as sc
        >>> from secateur.data.conversion import as_batches
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> table = measure_latency(sc.trace(model, torch.randn(2, 4)), as_batches(torch.randn(2, 4))[0])
        >>> len(table.layers), table.dense_seconds > 0
        (2, True)
    """
    check_runtime(runtime)
    layers = {layer.node: layer for layer in layers_of(network)}
    followed, step = _followed(network, layers), channel_step(AUTO, network.device).size
    timings = Timings(network.device, runtime)
    tables: dict[Node, tuple[Tensor, tuple[int, ...], tuple[int, ...]]] = {}
    beside: defaultdict[Node | None, float] = defaultdict(float)

    def timed(node: Node) -> OpOverride:
        def handler(target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            call = _Call(target, args, kwargs)
            result = call()
            if node in layers:
                tables[node] = _measured_table(layers[node], step, timings, CLOCKS[runtime], call)
            elif runtime == EAGER:
                beside[followed[node]] += timings.recall(call.description, partial(call_seconds, call))
            else:
                beside[followed[node]] += sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
            return result

        return handler

    handlers = {node: timed(node) for node in network.program.nodes if node.op == "call_function"}
    with torch.no_grad():
        network.program.forward(batch, handlers)
    timings.save()
    if runtime != EAGER:
        beyond = 0.0 if total is None else max(total - sum(float(table[0][-1, -1]) for table in tables.values()), 0.0)
        entries = max(sum(beside.values()), 1.0)
        beside = defaultdict(float, {node: beyond * count / entries for node, count in beside.items()})
    measured = [
        Timed(layer.inputs, layer.outputs, seconds, beside[node], rows, columns, step, _block_unit(network, node),
              layer.name)
        for node, layer in layers.items()
        for seconds, rows, columns in (tables[node],)
    ]  # fmt: skip
    return LatencyTable(tuple(measured), beside[None])


@dataclass(frozen=True)
class _Call:
    """A call of an operator."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        return self.target(*self.args, **self.kwargs)

    @property
    def description(self) -> str:
        """The operator with all that its time depends on: shapes, types and layouts of tensors, other arguments."""
        leaves, form = tree_flatten((self.args, self.kwargs))
        words = [
            f"{value.dtype}{tuple(value.shape)}{tuple(value.stride())}" if isinstance(value, Tensor) else repr(value)
            for value in leaves
        ]
        return f"{self.target} {form} {' '.join(words)}"


def _onnx_seconds(layer: LinearLayer, call: _Call) -> float:
    tensors = weights_of(layer, call.args, call.kwargs).values()
    weight = next(tensor for tensor in tensors if tensor.dim() > 1)
    bias = next((tensor for tensor in tensors if tensor.dim() == 1), None)
    return layer_seconds(layer, operand(layer, call.args, call.kwargs), weight, bias)


CLOCKS: Mapping[str, Callable[[LinearLayer, _Call], float]] = {
    EAGER: lambda layer, call: call_seconds(call),
    ONNXRUNTIME: _onnx_seconds,
}
"""How a layer's call is timed in each runtime."""


def _block_unit(network: Network, node: Node) -> int:
    """The unit of the block in which an operator lies; -1 where it lies in none."""
    group = blocks_of(network)
    places = () if group is None else group.block_paths
    inside = (at for at, path in enumerate(places) if is_inside(module_path(node), [path]))
    return next((group.offset + at for at in inside if group is not None), -1)


def _followed(network: Network, layers: dict[Node, LinearLayer]) -> dict[Node, Node | None]:
    """For each operator the layer whose outputs it handles: that of its first input that follows one."""
    found: dict[Node, Node | None] = {}
    for node in network.program.nodes:
        inputs = (found.get(each) for each in node.all_input_nodes)
        found[node] = node if node in layers else next((each for each in inputs if each is not None), None)
    return found


def _measured_table(
    layer: LinearLayer, step: int, timings: Timings, clock: Callable[[LinearLayer, _Call], float], call: _Call
) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    """A layer's seconds by numbers of inputs (rows) and outputs (columns), and these numbers."""
    columns = measured_sizes(len(layer.outputs), step) if layer.groups == 1 else _sizes_of_groups(layer, step)
    rows = measured_sizes(len(layer.inputs), step) if layer.groups == 1 else (len(layer.inputs),)
    seconds = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    for row, read in enumerate(rows):
        for column, made in enumerate(columns):
            smaller = _Call(call.target, *smaller_call(layer, call.args, call.kwargs, read, made))
            seconds[row, column] = timings.recall(smaller.description, partial(clock, layer, smaller))
    if layer.groups > 1:  # inputs go with the outputs of their group, so that their number says nothing more
        return seconds.expand(2, -1), (0, len(layer.inputs)), columns
    return seconds, rows, columns


def _sizes_of_groups(layer: LinearLayer, step: int) -> tuple[int, ...]:
    """Numbers of outputs that are whole groups of a grouped convolution."""
    filters = len(layer.outputs) // layer.groups
    return tuple(groups * filters for groups in measured_sizes(layer.groups, step))
