"""Second moments of layers' inputs, and of the gradients by their outputs, summed over microbatches."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateur.errors import DataError
from secateur.graph.operators import arguments
from secateur.importance.inverse_covariances import MatrixInverse, RowsInverse
from secateur.importance.shrinkage import ShrunkCovariance
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.row_products import RowProducts
from secateur.utils.dtypes import at_least_single, to_widest
from secateur.utils.symmetric_matrices import products


@dataclass(frozen=True)
class FisherFactors:
    """The covariance of one layer's input, and the curvature of the loss along its output.

    Args:
        covariance: the covariance of its features, about their means where the layer can have a constant, shrunk so
            that it has an inverse.
        curvature: the curvature of the loss, summed over the positions of an example: along its outputs (groups,
            outputs, outputs), or, where there are more outputs than features, along changes of a weight that all
            outputs share, W'CW (groups, features, features).
        along_features: whether it is the latter.
    """

    covariance: ShrunkCovariance
    curvature: Tensor
    along_features: bool

    def inverse(self, group: int) -> MatrixInverse | RowsInverse:
        """Return the inverse of the covariance of a group's input."""
        return self.covariance.inverse(group)

    def weighted(self, matrix: Tensor, group: int) -> Tensor:
        """Return a matrix A (n, features) with A'A the curvature along the features of a group.

        Args:
            matrix: the layer's weights in this group (outputs, features).
            group: the group's number.
        """
        values, vectors = torch.linalg.eigh(self.curvature[group])
        root: Tensor = (vectors * values.clamp_min(0).sqrt()).T
        return root if self.along_features else root @ matrix


class InputMoments:
    """The sums over microbatches that give the covariance of what one layer reads, or several layers that read alike.

    Args:
        layer: the first of the layers; its draws select the positions.
    """

    def __init__(self, layer: LinearLayer) -> None:
        self.layer = layer
        self._shift, self._products = torch.zeros(()), RowProducts()
        self._covariance: ShrunkCovariance | None = None

    @property
    def rows(self) -> int:
        """The number of positions of all examples that were added."""
        return self._products.count

    def read(self, x: Tensor, examples: int, share: int, draws: torch.Generator) -> None:
        """Add some positions of every example, about the first microbatch's mean to lose little by rounding.

        Args:
            x: the input.
            examples: the number of examples.
            share: the number of positions of each example.
            draws: the generator that selects them.
        """
        positions = self.layer.positions(x, examples)
        positions_read = torch.randperm(positions.count, generator=draws)[:share].to(x.device)
        rows = at_least_single(
            positions.rows(positions_read, self.layer.groups).transpose(0, 1)
        )  # (groups, rows, features)
        if self.rows == 0:
            self._shift = rows.mean(1, keepdim=True)
        self._products.add(torch.cat([rows - self._shift, torch.ones_like(rows[..., :1])], 2))

    def covariance(self) -> ShrunkCovariance:
        """Return the covariance, the same object each time; the sums are used up."""
        if self._covariance is None:
            self._covariance = self._summed_up()
        return self._covariance

    def _summed_up(self) -> ShrunkCovariance:
        sums, self._products = self._products, RowProducts()
        rows = sums.rows()
        if rows is not None:
            rows = to_widest(rows[..., :-1])
            rows = rows - rows.mean(1, keepdim=True) if self.layer.constant else rows + to_widest(self._shift)
            return ShrunkCovariance.of_rows(rows / sums.count**0.5)
        gram = sums.summed().div_(sums.count)
        mean = gram[:, -1, :-1].clone()
        moments = gram[:, :-1, :-1]
        moments.baddbmm_(mean[:, :, None], mean[:, None], alpha=-1)
        if not self.layer.constant:
            full_mean = mean + to_widest(self._shift[:, 0])
            moments.baddbmm_(full_mean[:, :, None], full_mean[:, None])
        return ShrunkCovariance.of(moments, sums.count)


class FisherAccumulator:
    """The sums over microbatches that give a layer's covariance and curvature.

    Only W'CW is needed of the curvature C along the outputs. Where a layer has more outputs than features (a head over
    a vocabulary), it is accumulated as such, from gradients times weights.

    Args:
        layer: the layer.
        weight: its weight.
        inputs: the sums for what it reads, which layers that read alike share; None for its own.
    """

    def __init__(self, layer: LinearLayer, weight: Tensor, inputs: InputMoments | None = None) -> None:
        self.layer, self.inputs = layer, InputMoments(layer) if inputs is None else inputs
        outputs = len(layer.outputs) // layer.groups
        self.matrices = at_least_single(layer.matrix(weight)) if outputs > layer.features_of_group else None
        self.curvature = torch.zeros(())
        self.examples = 0

    @property
    def rows(self) -> int:
        """The number of positions of all examples that were added."""
        return self.inputs.rows

    def read(self, x: Tensor, examples: int, share: int, draws: torch.Generator) -> None:
        """Add some positions of every example; of layers that read alike, those of the first.

        Args:
            x: the layer's input.
            examples: the number of examples.
            share: the number of positions of each example.
            draws: the generator that selects them.
        """
        if self.inputs.layer is self.layer:
            self.inputs.read(x, examples, share, draws)
        else:
            skip_draws(self.layer, x, examples, draws)

    def add_gradient(self, gradient: Tensor, examples: int) -> None:
        """Add the gradients of one draw of classes for every example."""
        by_output = self.layer.results(gradient, examples).flatten(0, 1)
        rows = at_least_single(by_output.unflatten(1, (self.layer.groups, -1)).transpose(0, 1))
        rows = rows if self.matrices is None else rows @ self.matrices.to(rows)
        scale = rows.abs().amax().clamp_min(torch.finfo(rows.dtype).tiny)  # squares of small gradients would underflow
        rows = rows / scale
        product = products(rows).mul_(to_widest(scale).square())
        self.curvature = product if self.curvature.dim() == 0 else self.curvature.add_(product)
        self.examples += examples

    def result(self) -> FisherFactors:
        """Return covariance and curvature; the sums are used up, as each is as large as the result.

        Raises:
            DataError: they hold NaN or infinity.
        """
        covariance = self.inputs.covariance()
        curvature, self.curvature = self.curvature.div_(self.examples), torch.zeros(())
        if not bool(covariance.is_finite and torch.isfinite(curvature).all()):
            raise DataError(f"{self.layer.name} reads or passes on NaN or infinity; 'obs' can't rank what it reads")
        return FisherFactors(covariance, curvature, self.matrices is not None)


def fisher_accumulators(
    state: Callable[[str], Tensor], layers: Iterable[LinearLayer]
) -> dict[LinearLayer, FisherAccumulator]:
    """Return the sums of some layers; those that read the same value share the sums for their input.

    Args:
        state: returns a parameter by name.
        layers: the layers, in the order in which they run.
    """
    inputs: dict[Any, InputMoments] = {}
    accumulators = {}
    for layer in layers:
        moments = inputs.setdefault(_input_key(layer), InputMoments(layer))
        accumulators[layer] = FisherAccumulator(layer, state(layer.weight).detach(), moments)
    return accumulators


def skip_draws(layer: LinearLayer, x: Tensor, examples: int, draws: torch.Generator) -> None:
    """Draw positions of a layer that are not read, so that the draws of others do not depend on whether they are."""
    torch.randperm(layer.positions(x, examples).count, generator=draws)


def _input_key(layer: LinearLayer) -> Any:
    """Return what is equal for layers whose inputs have the same covariance: the projections of attention."""
    if type(layer) is not LinearLayer or layer.is_convolution or layer.groups > 1:
        return layer
    return arguments(layer.node)[layer.argument], layer.dim, bool(layer.constant)
