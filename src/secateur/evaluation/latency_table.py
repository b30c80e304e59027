"""A table of layer times, and the time of a plan by it.

Every layer is timed with numbers of inputs and outputs that fill the kernels of the device; between those its time is a
staircase: outputs count up to the next number that fills them. Operators that run beside the layers (activations,
normalisations, sums) are taken to shrink with the outputs of the layer that they follow.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from secateur.options.call_checks import checked_calls


@dataclass(frozen=True, eq=False)
class LayerLatency:
    """The seconds of one layer.

    Args:
        inputs: the unit of each of its inputs. (inputs,)
        outputs: the unit of each of its outputs. (outputs,)
        seconds: the measured times by numbers of inputs and outputs. (rows, columns)
        beside: of the operators that follow it, at full size.
        rows: the measured numbers of inputs, ascending; the last one is all of them.
        columns: the measured numbers of outputs, ascending; the last one is all of them.
        step: outputs between these numbers count up to multiples of this, as kernels run in blocks.
        block: the unit of the block in which it lies, where blocks are units; else -1.
        name: the layer's.
        weight_bytes: the bytes of its weight; 0 where it does not run.
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
    weight_bytes: int = 0
    _known: dict[tuple[int, int], float] = field(default_factory=dict, repr=False)

    def seconds_under(self, mask: Tensor) -> float:
        """Return the seconds with the units of a mask. (units + 1,)."""
        if not mask[self.block]:
            return 0.0
        inputs, outputs = (int(mask[units].sum()) for units in (self.inputs, self.outputs))
        if (inputs, outputs) not in self._known:
            self._known[inputs, outputs] = self._seconds_of(inputs, outputs)
        return self._known[inputs, outputs]

    def _seconds_of(self, inputs: int, outputs: int) -> float:
        filled_outputs = min(-(-outputs // self.step) * self.step, self.columns[-1])
        weights = torch.outer(
            _interpolation_weights(inputs, self.rows), _interpolation_weights(filled_outputs, self.columns)
        )
        return float((weights * self.seconds).sum().clamp_min(0)) + self.beside * outputs / max(self.columns[-1], 1)


def _interpolation_weights(count: int, measured_sizes: Sequence[int]) -> Tensor:
    """Return the weight of each measured size for a size between them, or in line with the least two, (sizes,)."""
    weights = torch.zeros(len(measured_sizes), dtype=torch.float64)
    if len(measured_sizes) == 1:
        weights[0] = count / measured_sizes[0]
        return weights
    above = min(max(bisect.bisect_left(measured_sizes, count), 1), len(measured_sizes) - 1)
    share = (count - measured_sizes[above - 1]) / (measured_sizes[above] - measured_sizes[above - 1])
    weights[above - 1], weights[above] = 1 - share, share
    return weights


@checked_calls
@dataclass(frozen=True)
class LatencyTable:
    """The times of a network on this machine.

    Args:
        layers: the times of its layers.
        other_seconds: of the operators that follow no layer.
    """

    layers: tuple[LayerLatency, ...]
    other_seconds: float

    def fraction(self, mask: Tensor) -> float:
        """Return the time with the units of a mask (units + 1,) as a fraction of the dense network's."""
        return self._seconds_under(mask) / max(self._seconds_under(torch.ones_like(mask)), 1e-12)

    @property
    def dense_seconds(self) -> float:
        """The whole network's time for the batch."""
        return self.other_seconds + sum(float(layer.seconds[-1, -1]) + layer.beside for layer in self.layers)

    def _seconds_under(self, mask: Tensor) -> float:
        return self.other_seconds + sum(layer.seconds_under(mask) for layer in self.layers)


def with_weights_read(table: LatencyTable, sweep: float, total: float) -> LatencyTable:
    """Return a table that also has the time of reading weights that are in no cache.

    A layer that is timed by itself finds its weight in the processor's caches. With one token, reading the weights
    takes most of the time of a network that is larger than the caches. That time is divided among the layers by the
    bytes of their weights, and goes with the inputs and the outputs that are removed.

    Args:
        table: the times of operators, one by one.
        sweep: the measured seconds of all layers, one after another.
        total: the measured seconds of the whole network, which are not exceeded.
    """
    seconds_alone = sum(float(layer.seconds[-1, -1]) for layer in table.layers)
    reading = max(min(sweep - seconds_alone, total - table.dense_seconds), 0.0)
    weight_bytes = sum(layer.weight_bytes for layer in table.layers)
    layers = []
    for layer in table.layers:
        rows, columns = (torch.tensor(sizes, dtype=torch.float64) for sizes in (layer.rows, layer.columns))
        rows = torch.ones_like(rows) if layer.rows[0] == 0 else rows  # groups go with their outputs
        shares = torch.outer(rows / rows[-1], columns / columns[-1])
        seconds = layer.seconds + reading * layer.weight_bytes / max(weight_bytes, 1) * shares
        layers.append(replace(layer, seconds=seconds, _known={}))
    return replace(table, layers=tuple(layers))


MOST_CALL_SECONDS = 2.5e-4
"""The most time beyond its operators that a layer has whatever its size; our choice, from CIFAR ResNets."""


def with_overhead(table: LatencyTable, total: float | None) -> LatencyTable:
    """Return a table that also has the time of the whole network beyond that of its operators, one by one.

    Up to a quarter of a millisecond of it is a constant of each layer that runs: the time of calling operators.
    Measured on plans for a CIFAR ResNet, it does not depend on numbers of units, and goes with the layers of a block
    that is left out. The rest is memory that is not at hand, such as the weights of wide layers, and scales with the
    layers' times.

    Args:
        table: the times of operators, one by one.
        total: the measured seconds of the whole network; None for no time beyond.
    """
    running = [float(layer.seconds[-1, -1]) for layer in table.layers if float(layer.seconds[-1, -1]) > 0]
    beyond = max((total or 0.0) - table.dense_seconds, 0.0)
    constant = min(beyond / max(len(running), 1), MOST_CALL_SECONDS)
    scale = 1 + (beyond - constant * len(running)) / sum(running) if running else 1.0
    layers = (
        replace(layer, seconds=layer.seconds * scale + constant, _known={})
        if float(layer.seconds[-1, -1]) > 0
        else layer
        for layer in table.layers
    )
    return replace(table, layers=tuple(layers))
