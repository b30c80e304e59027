"""Covariances of layers' inputs, by which the conjugate gradients of block reconstruction are preconditioned."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Node

from secateur.graph.cursor import Values
from secateur.graph.operators import arguments
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import value_of
from secateur.recovery.penalty_floor import penalty_floor
from secateur.recovery.pruned_layer import PrunedLayer, results_at
from secateur.recovery.regression_moments import RegressionMoments
from secateur.recovery.ridge import systems_of
from secateur.recovery.shared_sums import layers_by_rows
from secateur.utils.symmetric_matrices import factor_in_place

RIDGE = 1e-3


class Covariance:
    """The covariance of a layer's input, with a small ridge, factored in single precision where possible."""

    def __init__(self, moments: RegressionMoments, has_constant: bool) -> None:
        self._dual, self._rows = None, moments.rows
        if moments.features is not None:
            self._dual = systems_of(moments, has_constant)(RIDGE)
            return
        regular = moments.penalised_gram(RIDGE, has_constant).div_(moments.rows)
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


class CovarianceSums:
    """Sums over the rows that some layers read, added up microbatch by microbatch.

    Args:
        pruned_layers: the layers.
        cut_network: the cut network.
        sizes: the number of examples of each microbatch.
        factors: of layers whose rows have weights the factors of rows, for each microbatch in the shape of the layer's
            result, with one output.
    """

    def __init__(
        self,
        pruned_layers: Sequence[PrunedLayer],
        cut_network: EmbeddedPrunedNetwork,
        sizes: Sequence[int],
        factors: Mapping[LinearLayer, Sequence[Tensor | None]],
    ) -> None:
        self._pruned_layers, self._cut_network, self._sizes, self._factors = pruned_layers, cut_network, sizes, factors
        self._fixed_values = cut_network.fixed()
        self._totals: dict[PrunedLayer, RegressionMoments] = {}
        self._alike = layers_by_rows(pruned_layers, cut_network.network)

    @property
    def inputs(self) -> list[Node]:
        """The operators whose results the layers read."""
        return [node for pruned_layer in self._pruned_layers for node in pruned_layer.layer.node.all_input_nodes]

    @torch.no_grad()
    def add(self, microbatch: int, values: Values) -> None:
        """Add the rows of a microbatch.

        Args:
            microbatch: its number.
            values: those that the layers read, and others.
        """
        examples, size = sum(self._sizes), self._sizes[microbatch]
        for pruned_layer, *_ in self._alike:  # the rows of the others are the same
            layer = pruned_layer.layer
            x = value_of(values, self._fixed_values, arguments(layer.node)[layer.argument])
            rows, positions = pruned_layer.read(x, size, math.ceil(pruned_layer.few_rows / examples), microbatch)
            if (factor := self._factor_of(layer, microbatch)) is not None:
                rows = rows * results_at(layer, size, positions, factor)
            moments, new = self._totals.get(pruned_layer), (rows, rows[..., :0])
            self._totals[pruned_layer] = RegressionMoments.of(*new) if moments is None else moments.with_rows(*new)

    def take(self) -> dict[LinearLayer, Covariance]:
        """Return the covariances of the layers; the sums are used up, and nothing more is added."""
        alike, self._alike, self._pruned_layers = self._alike, [], ()
        return {layer: covariance for layers in alike for layer, covariance in self._covariances_of(layers).items()}

    @torch.no_grad()
    def _covariances_of(self, pruned_layers: Sequence[PrunedLayer]) -> dict[LinearLayer, Covariance]:
        """Return the covariances of layers that read the same rows, the same one where their penalties are equal."""
        sums, by_penalty = self._totals.pop(pruned_layers[0]), list[tuple[Tensor, Covariance]]()
        covariances: dict[LinearLayer, Covariance] = {}
        for pruned_layer in pruned_layers:
            matrix, has_constant = pruned_layer.matrix(self._cut_network), pruned_layer.has_constant
            moments = replace(sums, floor=penalty_floor(matrix, sums, pruned_layer.features.shape[1]))
            penalty = moments.penalty(RIDGE, has_constant)
            if not any(torch.equal(penalty, other) for other, _ in by_penalty):
                by_penalty.append((penalty, Covariance(moments, has_constant)))
            covariances[pruned_layer.layer] = next(
                covariance for other, covariance in by_penalty if torch.equal(penalty, other)
            )
        return covariances

    def _factor_of(self, layer: LinearLayer, microbatch: int) -> Tensor | None:
        """Return the factors of a layer's rows in a microbatch; None where all rows count alike."""
        return self._factors[layer][microbatch] if layer in self._factors else None
