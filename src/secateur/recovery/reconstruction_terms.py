"""Terms of block reconstruction that problems share: targets of layers, and covariances of their inputs."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.graph.cursor import Values
from secateur.graph.value_bytes import example_bytes, live_bytes_by_position
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.straight_through import straight_through
from secateur.recovery.batchnorm import Statistics
from secateur.recovery.compact_layers import select_positions
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.input_covariance import Covariance
from secateur.recovery.row_weights import RowWeights
from secateur.recovery.targets import OutputContext, output_context
from secateur.utils.dtypes import at_least_single
from secateur.utils.free_memory import return_free_memory


@dataclass(frozen=True, eq=False)
class ReconstructionTerm:
    """The target of a layer's output, at the operator where it is compared.

    Args:
        context: the operators behind the layer's output.
        axis: of its channels or features.
        stays: which of these stay.
        targets: for each microbatch the target values; infinite where the nonlinearity behind cuts them off.
        weight: one over the sum of squares of the targets, about the mean.
        factors: for each microbatch the factor of each row's error, (examples, positions, ..., 1); None where all rows
            count alike.
    """

    context: OutputContext
    axis: int
    stays: Tensor
    targets: Sequence[Tensor]
    weight: float
    factors: Sequence[Tensor | None]

    def output(self, values: Values) -> Tensor:
        """Return the kept positions of the output, from the values of a run."""
        output: Tensor = values[self.context.pre_activation]
        if output.shape[self.axis] != len(self.stays):
            output = select_positions(output, self.axis, self.stays)
        return at_least_single(output)

    def errors(self, microbatch: int, output: Tensor) -> Tensor:
        """Compute target minus output of a microbatch, zero where the nonlinearity behind clips, times the factor."""
        factor, errors = self.factors[microbatch], self._unweighted_errors(microbatch, output)
        return errors if factor is None else errors.mul_(factor)

    def direction(self, microbatch: int, errors: Tensor) -> Tensor:
        """Return the direction of a microbatch's output in which its weighted squared error falls."""
        factor = self.factors[microbatch]
        return errors * self.weight if factor is None else errors * (self.weight * factor)

    def _unweighted_errors(self, microbatch: int, output: Tensor) -> Tensor:
        target, low, high = self.targets[microbatch], self.context.low, self.context.high
        if not self.context.cuts_off:
            return target - output
        if high == math.inf:  # as below, in fewer steps: the target is minus infinity where all below the bound will do
            nearest = output.clamp(max=low)
            return torch.maximum(nearest, target, out=nearest).sub_(output)
        lower = target.clamp(max=high)
        upper = target if low == -math.inf else target.clamp(min=low)
        return torch.clamp(output, lower, upper).sub_(output)


class TargetCollector:
    """Collect the targets of a layer from the dense network's values, of which only the kept ones are stored.

    Args:
        layer: the layer.
        context: the operators behind its output.
        cut_network: the cut network.
    """

    def __init__(self, layer: LinearLayer, context: OutputContext, cut_network: EmbeddedPrunedNetwork) -> None:
        self._context, self._is_convolution = context, layer.is_convolution
        self._stays = torch.nonzero(cut_network.mask[layer.outputs]).flatten()
        self._weights, self._statistics = RowWeights(context), Statistics()
        self._targets: list[Tensor] = []
        self._factors: list[Tensor | None] = []

    def add(self, values: Values) -> None:
        """Add the targets of a microbatch, from the dense network's values."""
        value: Tensor = values[self._context.pre_activation]
        low, high = self._context.low, self._context.high
        target = at_least_single(select_positions(value, self._axis_of(value), self._stays))  # a copy
        factor = _as_column(self._weights.factors(value))
        rows = target if factor is None else target * factor
        self._statistics.add(rows.movedim(self._axis_of(value), 1) if rows.dim() > 1 else rows[None])
        if low > -math.inf:
            target.masked_fill_(target <= low, -math.inf)
        if high < math.inf:
            target.masked_fill_(target >= high, math.inf)
        self._targets.append(target)
        self._factors.append(factor)

    def term(self) -> ReconstructionTerm:
        """Return the term of the targets."""
        weight = 1 / (float(self._statistics.variance.sum()) * self._statistics.rows + 1e-12)
        target, stays = self._targets[0], self._stays.to(self._targets[0].device)
        return ReconstructionTerm(self._context, self._axis_of(target), stays, self._targets, weight, self._factors)

    def _axis_of(self, value: Tensor) -> int:
        return 1 if self._is_convolution else value.dim() - 1


def _as_column(factors: Tensor | None) -> Tensor | None:
    return None if factors is None else at_least_single(factors)[..., None]


class SharedTargets:
    """The dense network's target values, and the covariances of layers' inputs.

    Layers lie in several problems, one after another. The dense network runs once for all of them, ahead of the cut
    one. Covariances change little as the layers before adapt, and only tell in which proportions the weights move.

    Args:
        network: the network.
        layers: those that are compared with the dense network.
        microbatches: the examples.
    """

    def __init__(self, network: Network, layers: Iterable[LinearLayer], microbatches: Sequence[Batch]) -> None:
        self.contexts = {layer: output_context(network, layer) for layer in layers}
        self.terms: dict[LinearLayer, ReconstructionTerm] = {}
        self.covariances: dict[LinearLayer, Covariance] = {}
        self._program, self._handlers = network.program, straight_through(network.program)
        self._values: list[Values] = [dict(network.program.bind(microbatch)) for microbatch in microbatches]
        self._at = network.program.first
        self._live_bytes = live_bytes_by_position(network.program)

    def advance(self, cut_network: EmbeddedPrunedNetwork, stop: int) -> None:
        """Run the dense network up to an operator or farther, and keep the targets of the layers before it.

        It stops where its values, together with the targets on the way, take the least memory.
        """
        if stop <= self._at:
            return
        stop = self._lightest_stop(cut_network, stop)
        program, fixed = self._program, self._program.fixed()
        collectors = {
            layer: TargetCollector(layer, context, cut_network)
            for layer, context in self.contexts.items()
            if self._at <= program.position[context.pre_activation] < stop
        }
        nodes = [self.contexts[layer].pre_activation for layer in collectors]
        for microbatch, values in enumerate(self._values):
            ran = program.run({**fixed, **values}, self._at, stop, self._handlers, keep=nodes)
            for collector in collectors.values():
                collector.add(ran)
            self._values[microbatch] = {
                node: value for node, value in ran.items() if node not in fixed and program.last_use[node] >= stop
            }
        self._at = stop
        for layer, collector in collectors.items():
            self.terms[layer] = collector.term()

    def _lightest_stop(self, cut_network: EmbeddedPrunedNetwork, first_stop: int) -> int:
        """Return the position, from one on, at which values and the targets collected since take the fewest bytes."""
        program, live_bytes = self._program, self._live_bytes
        target_bytes = [0.0] * len(live_bytes)  # of the targets that are read at each position
        for layer, context in self.contexts.items():
            kept_share = float(cut_network.mask[layer.outputs].double().mean())
            node = context.pre_activation
            target_bytes[program.position[node]] += kept_share * example_bytes(program, node)
        collected_bytes = [0.0, *itertools.accumulate(target_bytes[first_stop:])]
        stops = range(first_stop, program.position[program.nodes[-1]] + 1)
        return min(stops, key=lambda stop: live_bytes[stop] + collected_bytes[stop - first_stop])

    def forget_all_but(self, layers: set[LinearLayer]) -> None:
        """Drop the terms of all other layers."""
        for table in (self.terms, self.covariances):
            for layer in table.keys() - layers:
                del table[layer]
        return_free_memory()
