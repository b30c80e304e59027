"""The rows of the regression of one layer, read from a run of the dense and the cut network."""

import math
from collections.abc import Iterator
from functools import partial

from torch import Tensor

from secateur.evaluation.holdout import FEWEST_BLOCKS, holdout_mask
from secateur.graph.operators import arguments
from secateur.recovery.output_targets import OutputTargets
from secateur.recovery.paired_run import PairedExecution, value_of
from secateur.recovery.pruned_layer import PrunedLayer, results_at
from secateur.recovery.regression_rows import RegressionRows
from secateur.recovery.row_weights import RowWeights
from secateur.recovery.target_rows import TargetInterval
from secateur.recovery.targets import output_context


def regression_rows(
    execution: PairedExecution,
    pruned_layer: PrunedLayer,
    matrix: Tensor,
    most_rows: int | None = None,
    has_interval: bool = True,
) -> Iterator[RegressionRows]:
    """Yield, for each microbatch, the layer's input and what its output lacks.

    Args:
        execution: both networks.
        pruned_layer: the kept features and outputs of the layer.
        matrix: its weights and its constant (groups, outputs, features + 1).
        most_rows: the maximal number of rows, as many as quick refits read; by default as many as the layer needs.
        has_interval: whether the nonlinearity behind the layer is looked at; without it, rows have no bounds.
    """
    layer, cut_network = pruned_layer.layer, execution.cut_network
    examples = sum(microbatch.size or 1 for microbatch in execution.microbatches)
    context, first_example = output_context(cut_network.network, layer), 0
    weights, targets = RowWeights(context), OutputTargets.of(context, cut_network)
    fixed_values = cut_network.fixed()
    known_rows = execution.known if most_rows is not None and context.has_affine_of_outputs else None
    is_known = known_rows is not None and known_rows.has(layer)
    for microbatch, dense, cut in execution.cut_alone(layer.node) if is_known else execution.beside(layer.node):
        x = value_of(cut, fixed_values, arguments(layer.node)[layer.argument])
        size = execution.microbatches[microbatch].size or 1
        rows, positions = pruned_layer.read(
            x, size, math.ceil((most_rows or pruned_layer.most_rows) / examples), microbatch
        )
        if known_rows is not None and not is_known:
            known_rows.add(layer, microbatch, targets, dense)
        values_at = partial(results_at, layer, size, positions)
        known_values = (
            known_rows.first(layer, microbatch, len(positions)) if known_rows is not None and is_known else None
        )
        dense_rows = known_values or targets.dense_rows(values_at, dense)
        target_interval = targets.interval(values_at, dense, cut, dense_rows, has_interval)
        is_held = _held_rows(rows.shape[1], size, first_example, examples).to(x.device)
        first_example += size
        residuals, lower, upper = _residuals(pruned_layer, target_interval, rows @ matrix.transpose(1, 2))
        yield RegressionRows(rows, residuals, lower, upper, is_held, weights.factors(dense_rows.value))


def _residuals(
    pruned_layer: PrunedLayer, target_interval: TargetInterval, output: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the differences of the target and of both ends of the interval from an output."""
    residuals = pruned_layer.outputs_of(target_interval.target) - output
    lower, upper = (
        residuals if end is target_interval.target else pruned_layer.outputs_of(end) - output
        for end in (target_interval.lower, target_interval.upper)
    )
    return residuals, lower, upper


def _held_rows(count: int, size: int, first_example: int, examples: int) -> Tensor:
    """Return which rows of a microbatch are held out, those of some examples or some of a few examples, (rows,)."""
    is_held = holdout_mask(size, first_example, examples)
    if examples < FEWEST_BLOCKS or count % size:  # none of them is held out, or the first axis is not the examples
        is_held = holdout_mask(count, 0, count)
    return is_held.repeat_interleave(count // len(is_held))
