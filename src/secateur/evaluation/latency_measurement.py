"""The measurement of a network's operators while it runs, for a table of latencies."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from secateur.coupling.network import Network
from secateur.coupling.residual_blocks import blocks_of, is_inside
from secateur.evaluation.channel_steps import AUTO, channel_step
from secateur.evaluation.generation_calls import GenerationCalls
from secateur.evaluation.latency_table import LatencyTable, LayerLatency
from secateur.evaluation.operator_calls import LAYER_CLOCKS, OperatorCall
from secateur.evaluation.runtimes import EAGER
from secateur.evaluation.saved_timings import Timings
from secateur.evaluation.smaller_layers import smaller_call
from secateur.evaluation.timing import call_seconds
from secateur.graph.operators import module_path
from secateur.graph.program import OpOverride
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.utils.progress import advance

SizeTable = tuple[Tensor, tuple[int, ...], tuple[int, ...]]
"""Seconds (rows, columns), the numbers of inputs of the rows, and the numbers of outputs of the columns."""


class LatencyMeasurement:
    """The times of a network's operators, measured while it runs.

    Args:
        network: the network.
        runtime: the runtime, as `measure_latency` takes it.
        generation: the calls of a phase of text generation, which are timed in the place of those of the run.
    """

    def __init__(self, network: Network, runtime: str, generation: GenerationCalls | None = None) -> None:
        self.network, self.runtime, self.generation = network, runtime, generation
        self.layers = {layer.node: layer for layer in layers_of(network)}
        self.followed = _followed_layers(network, self.layers)
        self.step = channel_step(AUTO, network.device).size
        self.timings = Timings(network.device, runtime)
        self.size_tables: dict[Node, SizeTable] = {}
        self.beside: defaultdict[Node | None, float] = defaultdict(float)  # seconds; in onnxruntime entries
        self.layer_calls: dict[Node, OperatorCall] = {}  # of the layers that run, at full size

    def override(self, node: Node) -> OpOverride:
        """Return the operator's call with a measurement."""

        def time_operator(target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            advance()
            call = OperatorCall(target, args, kwargs)
            result = call()
            if node in self.layers:
                self.size_tables[node] = self._size_table(self.layers[node], call)
            elif self.runtime == EAGER:
                self.beside[self.followed[node]] += self._operator_seconds(node, call)
            else:
                entries = sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
                self.beside[self.followed[node]] += entries
            return result

        return time_operator

    def _operator_seconds(self, node: Node, call: OperatorCall) -> float:
        """Return the seconds of an operator beside the layers; 0 where the phase of generation does not count it."""
        timed_call = call if self.generation is None else self.generation.of_operator(node, call)
        return (
            0.0
            if timed_call is None
            else self.timings.recall(timed_call.description, partial(call_seconds, timed_call))
        )

    def table(self, total: float | None) -> LatencyTable:
        """Return the table of all measurements.

        Args:
            total: seconds of the whole network in onnxruntime.
        """
        beside = self.beside if self.runtime == EAGER else self._shared_out(total)
        layers = []
        for node, layer in self.layers.items():
            seconds, rows, columns = self.size_tables[node]
            block = _block_unit(self.network, node)
            units = layer.inputs, layer.outputs
            weight = self.network.program.state(layer.weight)
            weight_bytes = weight.numel() * weight.element_size() if node in self.layer_calls else 0
            layers.append(
                LayerLatency(*units, seconds, beside[node], rows, columns, self.step, block, layer.name, weight_bytes)
            )
        return LatencyTable(tuple(layers), beside[None])

    def _shared_out(self, total: float | None) -> Mapping[Node | None, float]:
        """Divide the time beyond the layers among the other operators, by the entries that they make."""
        layer_seconds = sum(float(seconds[-1, -1]) for seconds, _, _ in self.size_tables.values())
        beyond = 0.0 if total is None else max(total - layer_seconds, 0.0)
        entries = max(sum(self.beside.values()), 1.0)
        return defaultdict(float, {node: beyond * count / entries for node, count in self.beside.items()})

    def _size_table(self, layer: LinearLayer, call: OperatorCall) -> SizeTable:
        timed_call = call if self.generation is None else self.generation.of_layer(layer, call)
        if timed_call is None:
            return torch.zeros(1, 1, dtype=torch.float64), (len(layer.inputs),), (len(layer.outputs),)
        self.layer_calls[layer.node] = timed_call
        return self._measured_sizes(layer, timed_call)

    def _measured_sizes(self, layer: LinearLayer, call: OperatorCall) -> SizeTable:
        rows: tuple[int, ...] = (len(layer.inputs),)
        columns = _group_sizes(layer, self.step)
        if layer.groups == 1:
            rows, columns = (measured_sizes(len(units), self.step) for units in (layer.inputs, layer.outputs))
        seconds = torch.zeros(len(rows), len(columns), dtype=torch.float64)
        for row, inputs in enumerate(rows):
            for column, outputs in enumerate(columns):
                smaller = OperatorCall(call.target, *smaller_call(layer, call.args, call.kwargs, inputs, outputs))
                measure = partial(LAYER_CLOCKS[self.runtime], layer, smaller)
                seconds[row, column] = self.timings.recall(smaller.description, measure)
        if layer.groups > 1:  # inputs are removed with the outputs of their group: their number decides nothing
            return seconds.expand(2, -1), (0, len(layer.inputs)), columns
        return seconds, rows, columns


def measured_sizes(size: int, step: int) -> tuple[int, ...]:
    """Return the sizes at which a layer is measured: multiples of the step next to the quarters, and all.

    Args:
        size: all channels.
        step: channels that kernels work on at once.

    Examples:
        >>> measured_sizes(64, 16), measured_sizes(40, 16), measured_sizes(16, 16), measured_sizes(3, 16)
        ((16, 32, 48, 64), (16, 32, 40), (4, 8, 12, 16), (1, 2, 3))
    """
    unit = step if size > step else 1
    quarters = {max(unit, round(size * share / unit) * unit) for share in (0.25, 0.5, 0.75)}
    return tuple(sorted({*(quarter for quarter in quarters if quarter < size), size}))


def _group_sizes(layer: LinearLayer, step: int) -> tuple[int, ...]:
    """Return numbers of outputs that are whole groups of a grouped convolution."""
    filters = len(layer.outputs) // layer.groups
    return tuple(groups * filters for groups in measured_sizes(layer.groups, step))


def _block_unit(network: Network, node: Node) -> int:
    """Return the unit of the block in which an operator lies; -1 where it lies in none."""
    group = blocks_of(network)
    if group is None:
        return -1
    blocks_around = (index for index, path in enumerate(group.block_paths) if is_inside(module_path(node), [path]))
    return next((group.offset + index for index in blocks_around), -1)


def _followed_layers(network: Network, layers: Mapping[Node, LinearLayer]) -> dict[Node, Node | None]:
    """Return for each operator the layer whose outputs it handles: that of its first input that follows one."""
    last_layers: dict[Node, Node | None] = {}
    for node in network.program.nodes:
        inputs = (last_layers.get(other) for other in node.all_input_nodes)
        last_layers[node] = node if node in layers else next((layer for layer in inputs if layer is not None), None)
    return last_layers
