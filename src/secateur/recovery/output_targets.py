"""The targets of a layer's output, given what the dense network makes of it.

The batch norm behind a layer may differ from the dense network's. Where the output is added to a residual stream, the
layer can correct the error of the stream. Where the nonlinearity behind cuts off values beyond a bound, any value
beyond it is equally good, and the output is free there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from secateur.graph.cursor import Values
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.target_rows import DenseRows, TargetInterval
from secateur.recovery.targets import OutputContext, batch_norm_affine

LEAST_SCALE = 1e-3
Rows = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class OutputTargets:
    """The targets of a layer's output, for the weights that the cut network has now.

    Args:
        context: the operators behind the layer.
        cut_network: the cut network.
        dense_norm, cut_norm: the batch norm behind as a factor and a shift of each channel, of both networks; None
            without one.
    """

    context: OutputContext
    cut_network: EmbeddedPrunedNetwork
    dense_norm: tuple[Tensor, Tensor] | None
    cut_norm: tuple[Tensor, Tensor] | None

    @staticmethod
    def of(context: OutputContext, cut_network: EmbeddedPrunedNetwork) -> "OutputTargets":
        """Read the batch norms of both networks, once for all microbatches."""
        if context.norm is None:
            return OutputTargets(context, cut_network, None, None)
        network = cut_network.network
        dense_norm, cut_norm = (
            batch_norm_affine(context.norm, network, state)
            for state in (network.program.state, lambda name: cut_network.state[name])
        )
        return OutputTargets(context, cut_network, dense_norm, cut_norm)

    def dense_rows(self, rows: Rows, dense: Values) -> DenseRows:
        """Return the dense network's values at some positions, arguments as for `interval`."""
        context = self.context
        output = rows(dense[context.layer])
        scale, shift = self._factor_and_shift(self.dense_norm, output, rows, dense)
        value = output if context.norm is None else output * scale + shift
        return DenseRows(output, value if context.other is None else value + rows(dense[context.other]))

    def interval(
        self, rows: Rows, dense: Values, cut: Values, dense_rows: DenseRows | None = None, has_interval: bool = True
    ) -> TargetInterval:
        """Return the target of the cut network's output at some positions, from the dense layer's output.

        Args:
            rows: of a value in the shape of the output what lies at these places (rows, outputs).
            dense: the dense network's values, the layer's own output among them.
            cut: those of the cut network.
            dense_rows: the dense network's values at these places, if known; `dense` may be empty then if
                `context.has_affine_of_outputs`.
            has_interval: whether outputs that the nonlinearity behind clips have an interval; by default they do.
        """
        context = self.context
        dense_rows = self.dense_rows(rows, dense) if dense_rows is None else dense_rows
        output, dense_value = dense_rows.output, dense_rows.value
        scale, shift = self._factor_and_shift(self.cut_norm, output, rows, dense)
        other = None if context.other is None else self.cut_network.spread(context.other, rows(cut[context.other]), -1)
        is_silent = scale.abs() <= LEAST_SCALE * scale.abs().max()  # all where all factors are zero
        has_silent, safe_scale = bool(is_silent.any()), torch.where(is_silent, 1.0, scale)

        def to_output(value: Tensor) -> Tensor:
            outputs = ((value if other is None else value - other) - shift).div_(safe_scale)
            return torch.where(is_silent, output, outputs) if has_silent else outputs

        target = to_output(dense_value)
        if not (context.cuts_off and has_interval):
            return TargetInterval(target, target, target)
        below, above = dense_value <= context.low, dense_value >= context.high
        ends = (
            torch.where(below, -inf, dense_value.clamp(max=context.high)),
            torch.where(above, inf, dense_value.clamp(min=context.low)),
        )
        first_end, last_end = (to_output(end) for end in ends)  # a negative scale turns them round
        return TargetInterval(target, torch.minimum(first_end, last_end), torch.maximum(first_end, last_end))

    def _factor_and_shift(
        self, norm: tuple[Tensor, Tensor] | None, output: Tensor, rows: Rows, dense: Values
    ) -> tuple[Tensor, Tensor]:
        """Return the factor and the shift of each output. (outputs,), or (rows, outputs) if rows differ"""
        if norm is None:
            return torch.ones(()).to(output), torch.zeros(()).to(output)
        if self.context.has_affine_of_outputs:
            return norm
        value = dense[self.context.layer]
        lengths = (1, -1, *[1] * (value.dim() - 2))
        factor, constant = (rows(values.reshape(lengths).expand_as(value)) for values in norm)
        return factor, constant
