"""Terms of block reconstruction that problems share: targets of layers, and covariances of their inputs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.graph.cursor import Values
from secateur.importance.activation_taps import straight_through
from secateur.masking.linear_layers import LinearLayer
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
        aim: what comes of the layer's output.
        axis: of its channels or features.
        stays: which of these stay.
        wanted: for each microbatch what it should be; infinite where the nonlinearity behind cuts it off.
        weight: one over the sum of squares of what it should be, about the mean.
        factors: for each microbatch the factor of each row's error, (examples, positions, ..., 1); None where all rows
            count alike.
    """

    aim: OutputContext
    axis: int
    stays: Tensor
    wanted: Sequence[Tensor]
    weight: float
    factors: Sequence[Tensor | None]

    @staticmethod
    def of(
        layer: LinearLayer, aim: OutputContext, within: EmbeddedPrunedNetwork, dense: Sequence[Tensor]
    ) -> "ReconstructionTerm":
        """Compute the target from the dense network's values, microbatch by microbatch."""
        axis = 1 if layer.is_convolution else dense[0].dim() - 1
        stays = torch.nonzero(within.mask[layer.outputs]).flatten().to(dense[0].device)
        targets = [at_least_single(select_positions(value, axis, stays)) for value in dense]
        weights, spread = RowWeights(aim), Statistics()
        factors = [_as_column(weights.factors(value)) for value in dense]
        for target, factor in zip(targets, factors, strict=True):
            rows = target if factor is None else target * factor
            spread.add(rows.movedim(axis, 1) if rows.dim() > 1 else rows[None])
        weight = 1 / (float(spread.variance.sum()) * spread.rows + 1e-12)
        for microbatch in targets:  # selected from the dense network's values, so these are not changed
            if aim.low > -math.inf:
                microbatch.masked_fill_(microbatch <= aim.low, -math.inf)
            if aim.high < math.inf:
                microbatch.masked_fill_(microbatch >= aim.high, math.inf)
        return ReconstructionTerm(aim, axis, stays, targets, weight, factors)

    def output(self, values: Values) -> Tensor:
        """Return the kept positions of the output, from the values of a run."""
        output: Tensor = values[self.aim.pre_activation]
        if output.shape[self.axis] != len(self.stays):
            output = select_positions(output, self.axis, self.stays)
        return at_least_single(output)

    def missing(self, microbatch: int, output: Tensor) -> Tensor:
        """Compute what the output of a microbatch lacks, zero where the nonlinearity behind clips, times its factor."""
        factor, lacking = self.factors[microbatch], self._lacking(microbatch, output)
        return lacking if factor is None else lacking.mul_(factor)

    def direction(self, microbatch: int, missing: Tensor) -> Tensor:
        """Return the direction of a microbatch's output in which its weighted squared error falls."""
        factor = self.factors[microbatch]
        return missing * self.weight if factor is None else missing * (self.weight * factor)

    def _lacking(self, microbatch: int, output: Tensor) -> Tensor:
        wanted, low, high = self.wanted[microbatch], self.aim.low, self.aim.high
        if not self.aim.cuts_off:
            return wanted - output
        if high == math.inf:  # as below, in fewer steps: minus infinity is wanted where all below the bound will do
            nearest = output.clamp(max=low)
            return torch.maximum(nearest, wanted, out=nearest).sub_(output)
        least = wanted.clamp(max=high)
        most = wanted if low == -math.inf else wanted.clamp(min=low)
        return torch.clamp(output, least, most).sub_(output)


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
        self.aims = {layer: output_context(network, layer) for layer in layers}
        self.anchors: dict[LinearLayer, ReconstructionTerm] = {}
        self.covariances: dict[LinearLayer, Covariance] = {}
        self._program, self._handlers = network.program, straight_through(network.program)
        self._values: list[Values] = [dict(network.program.bind(microbatch)) for microbatch in microbatches]
        self._at = network.program.first

    def advance(self, within: EmbeddedPrunedNetwork, stop: int) -> None:
        """Run the dense network up to an operator, and keep the targets of the layers before it."""
        if stop <= self._at:
            return
        program, fixed = self._program, self._program.fixed()
        reached = {
            layer: aim for layer, aim in self.aims.items() if self._at <= program.position[aim.pre_activation] < stop
        }
        compared = [aim.pre_activation for aim in reached.values()]
        targets: list[Values] = []
        for microbatch, values in enumerate(self._values):
            ran = program.run({**fixed, **values}, self._at, stop, self._handlers, keep=compared)
            targets.append({node: ran[node] for node in compared})
            self._values[microbatch] = {
                node: value for node, value in ran.items() if node not in fixed and program.last_use[node] >= stop
            }
        self._at = stop
        for layer, aim in reached.items():
            self.anchors[layer] = ReconstructionTerm.of(
                layer, aim, within, [values[aim.pre_activation] for values in targets]
            )

    def forget_all_but(self, layers: set[LinearLayer]) -> None:
        """Drop the terms of all other layers."""
        for table in (self.anchors, self.covariances):
            for layer in table.keys() - layers:
                del table[layer]
        return_free_memory()
