"""Second moments of what layers read, and of the gradients along what they give, in one pass over the examples."""

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
from secateur.evaluation.losses import is_logits, main_output, output_scales, outputs_by_example
from secateur.graph.program import OpFn, OpOverride
from secateur.importance.activation_taps import straight_through
from secateur.importance.context import CriterionContext
from secateur.importance.inverse_covariances import MatrixInverse, RowsInverse
from secateur.importance.shrinkage import ShrunkCovariance
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.operands import operand
from secateur.utils.dtypes import at_least_single, to_widest
from secateur.utils.rng import generator_for

MOST_ROWS = 20_000
ROWS_PER_FEATURE = 8
DRAWS = 2
FEWER_ROWS = 2  # times as many features as rows, from which on the rows are held


@dataclass(frozen=True)
class FisherFactors:
    """What one layer reads, and how the loss answers to errors of what it gives.

    Args:
        covariance: of its features, about their means where it can have a constant, shrunk so that it has an inverse.
        curvature: of the loss, summed over the places of an example: along its outputs (groups, outputs, outputs), or,
            where these are more than what it reads, along changes of a weight that all outputs share, W'CW
            (groups, features, features).
        along_features: which of the two.
    """

    covariance: ShrunkCovariance
    curvature: Tensor
    along_features: bool

    def inverse(self, group: int) -> MatrixInverse | RowsInverse:
        """The inverse of the covariance of what a group reads."""
        return self.covariance.inverse(group)

    def weighted(self, matrix: Tensor, group: int) -> Tensor:
        """A matrix (n, features) whose product with its own transpose is the curvature along the features of a group.

        Args:
            matrix: the layer's weights in this group (outputs, features).
            group: its number.
        """
        values, vectors = torch.linalg.eigh(self.curvature[group])
        root: Tensor = (vectors * values.clamp_min(0).sqrt()).T
        return root if self.along_features else root @ matrix


class FisherAccumulator:
    """What adds up to a layer's curvature over cells of examples.

    Only W'CW is wanted of the curvature C along the outputs. Where a layer gives more than it reads (a head over a
    vocabulary), it is summed up as such, from gradients times weights.

    Args:
        layer: the layer.
        weight: its weight.
    """

    def __init__(self, layer: LinearLayer, weight: Tensor) -> None:
        self.layer = layer
        outputs = len(layer.outputs) // layer.groups
        self.matrices = at_least_single(layer.matrix(weight)) if outputs > layer.features_of_group else None
        self.shift, self.gram, self.curvature = torch.zeros(()), torch.zeros(()), torch.zeros(())
        self.few: list[Tensor] | None = []  # the rows, until they are too many to be held
        self.rows = self.examples = 0

    def read(self, x: Tensor, examples: int, share: int, draws: torch.Generator) -> None:
        """Some places of every example, about the mean of the first cell's, so that little is lost by rounding."""
        places = self.layer.places(x, examples)
        chosen = torch.randperm(places.count, generator=draws)[:share].to(x.device)
        rows = at_least_single(places.rows(chosen, self.layer.groups).transpose(0, 1))  # (groups, rows, features)
        if self.rows == 0:
            self.shift = rows.mean(1, keepdim=True)
            self.gram = torch.zeros((), device=x.device)
        rows = torch.cat([rows - self.shift, torch.ones_like(rows[..., :1])], 2)
        self.rows += rows.shape[1]
        if self.few is not None and FEWER_ROWS * self.rows <= rows.shape[2]:
            self.few.append(rows)
            return
        for each in [*(self.few or ()), rows]:
            self.gram = self.gram + to_widest(each.transpose(1, 2) @ each)
        self.few = None

    def slope(self, gradient: Tensor, examples: int) -> None:
        """Gradients of one draw of classes for every example."""
        found = self.layer.results(gradient, examples).flatten(0, 1)
        rows = at_least_single(found.unflatten(1, (self.layer.groups, -1)).transpose(0, 1))
        rows = rows if self.matrices is None else rows @ self.matrices.to(rows)
        scale = rows.abs().amax().clamp_min(torch.finfo(rows.dtype).tiny)  # squares of small gradients would be nothing
        rows = rows / scale
        product = to_widest(rows.transpose(1, 2) @ rows) * to_widest(scale).square()
        self.curvature = self.curvature.to(rows.device) + product
        self.examples += examples

    def result(self) -> FisherFactors:
        """The curvature; the sums are used up, as each is as large as the result.

        Raises:
            DataError: NaN or infinity has come up.
        """
        covariance = self._covariance() if self.few is None else self._few_rows(self.few)
        curvature, self.curvature = self.curvature.div_(self.examples), torch.zeros(())
        if not bool(covariance.is_finite and torch.isfinite(curvature).all()):
            raise DataError(f"{self.layer.name} reads or passes on NaN or infinity; 'obs' can't judge what it reads")
        return FisherFactors(covariance, curvature, self.matrices is not None)

    def _covariance(self) -> ShrunkCovariance:
        gram, self.gram = self.gram.div_(self.rows), torch.zeros(())
        mean = gram[:, -1, :-1].clone()
        moments = gram[:, :-1, :-1] - mean[:, :, None] * mean[:, None]
        del gram
        if not self.layer.constant:
            whole = mean + to_widest(self.shift[:, 0])
            moments = moments + whole[:, :, None] * whole[:, None]
        return ShrunkCovariance.of(moments, self.rows)

    def _few_rows(self, parts: Sequence[Tensor]) -> ShrunkCovariance:
        rows, self.few = to_widest(torch.cat(list(parts), 1)[..., :-1]), []
        rows = rows - rows.mean(1, keepdim=True) if self.layer.constant else rows + to_widest(self.shift)
        return ShrunkCovariance.of_rows(rows / self.rows**0.5)


def fisher_factors(
    context: CriterionContext, layers: Sequence[LinearLayer], drawn: Sequence[LinearLayer]
) -> dict[LinearLayer, FisherFactors]:
    """One forward pass over the examples, and a backward pass for each of two draws.

    Args:
        context: the network and the examples.
        layers: whose curvatures are wanted.
        drawn: the layers for which places are drawn, `layers` among them: the draws depend on these alone.
    """
    examples = sum(cell.size or 1 for cell in context.microbatches)
    state = context.network.program.state
    sums = {layer: FisherAccumulator(layer, state(layer.weight).detach()) for layer in layers}
    draws = generator_for(context.seed, "curvature")
    for cell in context.watched(context.microbatches, "obs"):
        pass_cell(context, cell, sums, drawn, examples, draws)
    return {layer: sums.pop(layer).result() for layer in layers}


def pass_cell(
    context: CriterionContext,
    cell: Batch,
    sums: Mapping[LinearLayer, FisherAccumulator],
    drawn: Sequence[LinearLayer],
    examples: int,
    draws: torch.Generator,
) -> None:
    """Add one cell of examples to the sums of layers.

    Gradients are added as the backward pass comes to them, so that those of all layers are never there together.
    """
    size = cell.size or 1
    shares = {layer: _share(layer, examples) for layer in drawn}
    given: dict[LinearLayer, Tensor] = {}
    handlers: dict[Node, OpOverride] = {
        layer.node: _watched(layer, sums[layer], given, size, shares[layer], draws)
        if layer in sums
        else _drawn_only(layer, size, draws)
        for layer in drawn
    }
    with torch.enable_grad():
        output = context.forward(cell, {**straight_through(context.network.program), **handlers})
        reached: set[LinearLayer] = set()
        for layer in sums:
            given[layer].register_hook(partial(_add_slope, sums[layer], size, reached))
        for draw in range(DRAWS):
            reached.clear()
            drawn_loss(output, draws).backward(retain_graph=draw < DRAWS - 1)
            for layer in sums:
                if layer not in reached:
                    sums[layer].slope(torch.zeros_like(given[layer]), size)
                if given[layer].is_leaf:
                    given[layer].grad = None


def _add_slope(sums: FisherAccumulator, examples: int, reached: set[LinearLayer], gradient: Tensor) -> None:
    with torch.no_grad():
        sums.slope(gradient, examples)
    reached.add(sums.layer)


def _drawn_only(layer: LinearLayer, examples: int, draws: torch.Generator) -> OpOverride:
    """The layer as it is, with the draws that a watched one makes."""

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        torch.randperm(layer.places(operand(layer, args, kwargs).detach(), examples).count, generator=draws)
        return target(*args, **kwargs)

    return handler


def _share(layer: LinearLayer, examples: int) -> int:
    """How many places of each example are looked at."""
    return math.ceil(max(MOST_ROWS, ROWS_PER_FEATURE * layer.features_of_group) / examples)


def _watched(
    layer: LinearLayer,
    sums: FisherAccumulator,
    given: dict[LinearLayer, Tensor],
    examples: int,
    share: int,
    draws: torch.Generator,
) -> OpOverride:
    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        sums.read(operand(layer, args, kwargs).detach(), examples, share, draws)
        result = target(*args, **kwargs)
        given[layer] = result if result.requires_grad else result.detach().requires_grad_()
        return given[layer]

    return handler


def drawn_loss(output: Any, draws: torch.Generator) -> Tensor:
    """A random loss whose squared slope along any change of the output is, on average, the divergence's curvature.

    For class scores the log likelihood of classes that the network draws; for other outputs their product with noise.
    """
    if is_logits(output):
        scores = main_output(output).log_softmax(-1)
        classes = drawn_classes(scores.detach().exp(), draws)
        likelihoods = scores.gather(-1, classes[..., None])[..., 0]
        positions = likelihoods[0].numel()
        drawn: Tensor = -likelihoods.sum() / positions**0.5
        return drawn
    parts = outputs_by_example(output)
    total = torch.zeros((), device=parts[0].device)
    for part, scale in zip(parts, output_scales(output), strict=True):
        entries = part[0].numel() * len(parts)
        noise = torch.randn(part.shape, generator=draws).to(part)
        total = total + (part * noise).sum() * (2 / (entries * float(scale.detach()))) ** 0.5
    return total


def drawn_classes(chances: Tensor, draws: torch.Generator) -> Tensor:
    """One class at each place, drawn by its chance: the first up to which chances exceed a uniform number.

    Unlike `torch.multinomial`, it draws one number at each place, so that devices agree and a vocabulary costs little.

    Args:
        chances: of the classes (..., classes).
        draws: a generator of the CPU.

    Returns:
        The numbers of the classes (...).
    """
    sums = chances.flatten(0, -2).to(torch.promote_types(chances.dtype, torch.float32)).cumsum(-1)
    numbers = torch.rand(len(sums), 1, generator=draws).to(sums)
    classes = torch.searchsorted(sums, numbers * sums[:, -1:], right=True).clamp_max(chances.shape[-1] - 1)
    return classes.view(chances.shape[:-1])
