"""Covariances of layers' inputs, by which the conjugate gradients of block reconstruction are preconditioned."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from secateur.graph.cursor import Values
from secateur.graph.operators import arguments
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import value_of
from secateur.recovery.pruned_layer import PrunedLayer, results_at
from secateur.recovery.regression_moments import RegressionMoments
from secateur.recovery.ridge import systems_of
from secateur.utils.symmetric_matrices import factor_in_place

RIDGE = 1e-3


class Covariance:
    """The covariance of a layer's input, with a small ridge, factored in single precision where possible."""

    def __init__(self, moments: RegressionMoments, has_constant: bool) -> None:
        self._dual, self._rows = None, moments.rows
        if moments.features is not None:
            self._dual = systems_of(moments, has_constant)(RIDGE)
            return
        regular = moments.penalised(RIDGE, has_constant).div_(moments.rows)
        scales = regular.diagonal(dim1=1, dim2=2).sqrt()
        factor, failed = factor_in_place(regular)
        self._factor = factor.float()
        for group in torch.nonzero(failed).flatten().tolist():  # where rounding leaves nothing else
            self._factor[group] = torch.diag(scales[group]).float()

    def solve(self, slopes: Tensor) -> Tensor:
        """Multiply slopes (groups, features, outputs) by the inverse."""
        if self._dual is not None:
            return self._dual.solve(slopes) * self._rows
        solution: Tensor = torch.cholesky_solve(slopes.to(self._factor), self._factor).to(slopes)
        return solution


def input_covariances(
    pruned_layers: Sequence[PrunedLayer],
    within: EmbeddedPrunedNetwork,
    inputs: Iterable[Values],
    sizes: Sequence[int],
    factors: Mapping[LinearLayer, Sequence[Tensor | None]],
) -> dict[LinearLayer, Covariance]:
    """Compute the covariances of the inputs of some layers.

    Args:
        pruned_layers: the layers.
        within: the cut network.
        inputs: for each microbatch the values that the layers read.
        sizes: the number of examples of each microbatch.
        factors: of layers whose rows have weights the factors of rows, for each microbatch in the shape of the layer's
            result, with one output.
    """
    fixed_values, examples = within.fixed(), sum(sizes)
    totals: dict[PrunedLayer, RegressionMoments] = {}
    for microbatch, values in enumerate(inputs):
        for pruned_layer in pruned_layers:
            x = value_of(values, fixed_values, arguments(pruned_layer.layer.node)[pruned_layer.layer.argument])
            rows, chosen = pruned_layer.read(
                x, sizes[microbatch], math.ceil(pruned_layer.few_rows / examples), microbatch
            )
            if (factor := _factor_of(pruned_layer.layer, microbatch, factors)) is not None:
                rows = rows * results_at(pruned_layer.layer, sizes[microbatch], chosen, factor)
            before, new = totals.get(pruned_layer), (rows, rows[..., :0])
            totals[pruned_layer] = RegressionMoments.of(*new) if before is None else before.with_rows(*new)
    return {
        pruned_layer.layer: Covariance(totals.pop(pruned_layer), pruned_layer.has_constant)
        for pruned_layer in pruned_layers
    }


def _factor_of(
    layer: LinearLayer, microbatch: int, factors: Mapping[LinearLayer, Sequence[Tensor | None]]
) -> Tensor | None:
    """Return the factors of a layer's rows in a microbatch; None where all rows count alike."""
    return factors[layer][microbatch] if layer in factors else None
