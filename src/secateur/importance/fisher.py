"""Second moments of layers' inputs, and of the gradients by their outputs, in one pass over the examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.graph.program import OpFn, OpOverride
from secateur.importance.activation_taps import straight_through
from secateur.importance.context import CriterionContext
from secateur.importance.drawn_loss import drawn_loss
from secateur.importance.inverse_covariances import MatrixInverse, RowsInverse
from secateur.importance.shrinkage import ShrunkCovariance
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.operands import operand
from secateur.masking.row_products import RowProducts
from secateur.utils.dtypes import at_least_single, to_widest
from secateur.utils.rng import generator_for
from secateur.utils.symmetric_matrices import products

MAX_ROWS = 20_000
ROWS_PER_FEATURE = 8
DRAWS = 2


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


class FisherAccumulator:
    """The sums over micro-batches that give a layer's covariance and curvature.

    Only W'CW is needed of the curvature C along the outputs. Where a layer has more outputs than features (a head over
    a vocabulary), it is accumulated as such, from gradients times weights.

    Args:
        layer: the layer.
        weight: its weight.
    """

    def __init__(self, layer: LinearLayer, weight: Tensor) -> None:
        self.layer = layer
        outputs = len(layer.outputs) // layer.groups
        self.matrices = at_least_single(layer.matrix(weight)) if outputs > layer.features_of_group else None
        self.shift, self.curvature = torch.zeros(()), torch.zeros(())
        self.products = RowProducts()
        self.examples = 0

    @property
    def rows(self) -> int:
        """The number of positions of all examples that were added."""
        return self.products.count

    def read(self, x: Tensor, examples: int, share: int, draws: torch.Generator) -> None:
        """Add some positions of every example, about the first micro-batch's mean to lose little by rounding.

        Args:
            x: the layer's input.
            examples: the number of examples.
            share: the number of positions of each example.
            draws: the generator that selects them.
        """
        positions = self.layer.positions(x, examples)
        selected = torch.randperm(positions.count, generator=draws)[:share].to(x.device)
        rows = at_least_single(positions.rows(selected, self.layer.groups).transpose(0, 1))  # (groups, rows, features)
        if self.rows == 0:
            self.shift = rows.mean(1, keepdim=True)
        self.products.add(torch.cat([rows - self.shift, torch.ones_like(rows[..., :1])], 2))

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
        covariance = self._covariance()
        curvature, self.curvature = self.curvature.div_(self.examples), torch.zeros(())
        if not bool(covariance.is_finite and torch.isfinite(curvature).all()):
            raise DataError(f"{self.layer.name} reads or passes on NaN or infinity; 'obs' can't rank what it reads")
        return FisherFactors(covariance, curvature, self.matrices is not None)

    def _covariance(self) -> ShrunkCovariance:
        sums, self.products = self.products, RowProducts()
        rows = sums.rows()
        if rows is not None:
            rows = to_widest(rows[..., :-1])
            rows = rows - rows.mean(1, keepdim=True) if self.layer.constant else rows + to_widest(self.shift)
            return ShrunkCovariance.of_rows(rows / sums.count**0.5)
        gram = sums.summed().div_(sums.count)
        mean = gram[:, -1, :-1].clone()
        moments = gram[:, :-1, :-1]
        moments.baddbmm_(mean[:, :, None], mean[:, None], alpha=-1)
        if not self.layer.constant:
            full_mean = mean + to_widest(self.shift[:, 0])
            moments.baddbmm_(full_mean[:, :, None], full_mean[:, None])
        return ShrunkCovariance.of(moments, sums.count)


def fisher_factors(
    context: CriterionContext, layers: Sequence[LinearLayer], drawn: Sequence[LinearLayer]
) -> dict[LinearLayer, FisherFactors]:
    """Run one forward pass over the examples, and a backward pass for each of two draws.

    Args:
        context: the network and the examples.
        layers: the layers to measure.
        drawn: the layers for which positions are drawn, `layers` among them: the draws depend on these alone.
    """
    state = context.network.program.state
    sums = {layer: FisherAccumulator(layer, state(layer.weight).detach()) for layer in layers}
    draws = generator_for(context.seed, "curvature")
    for microbatch in context.watched(context.microbatches, "curvature"):
        accumulate(context, microbatch, sums, drawn, context.example_count, draws)
    return {layer: sums.pop(layer).result() for layer in layers}


def accumulate(
    context: CriterionContext,
    microbatch: Batch,
    sums: Mapping[LinearLayer, FisherAccumulator],
    drawn: Sequence[LinearLayer],
    examples: int,
    draws: torch.Generator,
) -> None:
    """Add one micro-batch to the sums of layers.

    Gradients are added as the backward pass reaches them, so that those of all layers are never alive together.
    """
    size = microbatch.size or 1
    shares = {layer: _positions_per_example(layer, examples) for layer in drawn}
    results: dict[LinearLayer, Tensor] = {}
    handlers: dict[Node, OpOverride] = {
        layer.node: _measured_layer(layer, sums[layer], results, size, shares[layer], draws)
        if layer in sums
        else _unmeasured_layer(layer, size, draws)
        for layer in drawn
    }
    with torch.enable_grad():
        output = context.forward(microbatch, {**straight_through(context.network.program), **handlers})
        reached: set[LinearLayer] = set()
        for layer in sums:
            results[layer].register_hook(partial(_add_gradient, sums[layer], size, reached))
        for draw in range(DRAWS):
            reached.clear()
            drawn_loss(output, draws).backward(retain_graph=draw < DRAWS - 1)
            for layer in sums:
                if layer not in reached:
                    sums[layer].add_gradient(torch.zeros_like(results[layer]), size)
                if results[layer].is_leaf:
                    results[layer].grad = None


def _add_gradient(sums: FisherAccumulator, examples: int, reached: set[LinearLayer], gradient: Tensor) -> None:
    with torch.no_grad():
        sums.add_gradient(gradient, examples)
    reached.add(sums.layer)


def _unmeasured_layer(layer: LinearLayer, examples: int, draws: torch.Generator) -> OpOverride:
    """Return the operator as it is, with the draws of a measured one."""

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        torch.randperm(layer.positions(operand(layer, args, kwargs).detach(), examples).count, generator=draws)
        return target(*args, **kwargs)

    return handler


def _positions_per_example(layer: LinearLayer, examples: int) -> int:
    """Return the number of positions of each example that are measured."""
    return math.ceil(max(MAX_ROWS, ROWS_PER_FEATURE * layer.features_of_group) / examples)


def _measured_layer(
    layer: LinearLayer,
    sums: FisherAccumulator,
    results: dict[LinearLayer, Tensor],
    examples: int,
    share: int,
    draws: torch.Generator,
) -> OpOverride:
    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        sums.read(operand(layer, args, kwargs).detach(), examples, share, draws)
        result = target(*args, **kwargs)
        results[layer] = result if result.requires_grad else result.detach().requires_grad_()
        return results[layer]

    return handler
