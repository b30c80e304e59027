"""One pass over the examples that accumulates the covariances and curvatures of layers."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.data.batch import Batch
from secateur.graph.program import OpFn, OpOverride
from secateur.importance.context import CriterionContext
from secateur.importance.drawn_loss import DrawnLosses
from secateur.importance.fisher import FisherAccumulator, FisherFactors, fisher_accumulators, skip_draws
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.operands import operand
from secateur.masking.straight_through import straight_through
from secateur.utils.rng import generator_for

MAX_ROWS = 20_000
ROWS_PER_FEATURE = 8
DRAWS = 2


def fisher_factors(
    context: CriterionContext, layers: Sequence[LinearLayer], drawn_layers: Sequence[LinearLayer]
) -> dict[LinearLayer, FisherFactors]:
    """Run one forward pass over the examples, and a backward pass for each of two draws.

    Args:
        context: the network and the examples.
        layers: the layers to measure.
        drawn_layers: the layers for which positions are drawn, `layers` among them: the draws depend on these alone.
    """
    sums = fisher_accumulators(context.network.program.state, layers)
    losses = DrawnLosses(generator_for(context.seed, "curvature"))
    for microbatch in context.watched(context.microbatches, "curvature"):
        accumulate(context, microbatch, sums, drawn_layers, context.example_count, losses)
    return {layer: sums.pop(layer).result() for layer in layers}


def accumulate(
    context: CriterionContext,
    microbatch: Batch,
    sums: Mapping[LinearLayer, FisherAccumulator],
    drawn_layers: Sequence[LinearLayer],
    examples: int,
    losses: DrawnLosses,
) -> None:
    """Add one microbatch to the sums of layers.

    Gradients are added as the backward pass reaches them, so that those of all layers are never alive together.
    """
    size, draws = microbatch.size or 1, losses.draws
    shares = {layer: _positions_per_example(layer, examples) for layer in drawn_layers}
    results: dict[LinearLayer, Tensor] = {}
    handlers: dict[Node, OpOverride] = {
        layer.node: _measured_layer(layer, sums[layer], results, size, shares[layer], draws)
        if layer in sums
        else _unmeasured_layer(layer, size, draws)
        for layer in drawn_layers
    }
    with torch.enable_grad():
        output = context.forward(microbatch, {**straight_through(context.network.program), **handlers})
        reached_layers: set[LinearLayer] = set()
        for layer in sums:
            results[layer].register_hook(partial(_add_gradient, sums[layer], size, reached_layers))
        for draw in range(DRAWS):
            reached_layers.clear()
            losses.of(output, microbatch).backward(retain_graph=draw < DRAWS - 1)
            for layer in sums:
                if layer not in reached_layers:
                    sums[layer].add_gradient(torch.zeros_like(results[layer]), size)
                if results[layer].is_leaf:
                    results[layer].grad = None


def _add_gradient(sums: FisherAccumulator, examples: int, reached_layers: set[LinearLayer], gradient: Tensor) -> None:
    with torch.no_grad():
        sums.add_gradient(gradient, examples)
    reached_layers.add(sums.layer)


def _unmeasured_layer(layer: LinearLayer, examples: int, draws: torch.Generator) -> OpOverride:
    """Return the operator as it is, with the draws of a measured one."""

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        skip_draws(layer, operand(layer, args, kwargs).detach(), examples, draws)
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
