"""Refit of layers by least squares: with inputs of the cut network, each layer approximates its dense outputs.

In the order in which they run, the weights and the constant of each linear layer or convolution are solved for so that
its output comes as near as it can to the dense layer's, on the examples. Where the output is added to a residual
stream, the error of the stream is corrected as well. The ridge pulls towards the cut weights, not towards zero, and is
chosen on examples held out of the fit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.layer_rows import regression_rows
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.penalty_floor import penalty_floor
from secateur.recovery.pruned_layer import PrunedLayer
from secateur.recovery.regression_moments import FeatureSums
from secateur.recovery.regression_rows import ClippedRegression, SplitMoments
from secateur.recovery.ridge import Choice, select_ridge, solve
from secateur.recovery.shared_sums import SharedSums
from secateur.recovery.targets import output_context
from secateur.utils.collected_warnings import warn
from secateur.utils.free_memory import return_free_memory
from secateur.utils.plurals import times_as_many
from secateur.utils.progress import track

FEW = 2
HELD = 1 << 28
Choices = Mapping[str, Choice]


def refit(
    execution: PairedExecution, choices: Choices | None = None, examples: int | None = None, has_steps: bool = True
) -> Choices:
    """Refit every layer in the order in which they run.

    Args:
        execution: both networks.
        choices: how layers were solved for before, by the names of their weights, to do the same with these examples.
        examples: how many there are in all, those held out of it included; a warning tells of layers for which these
            are few.
        has_steps: whether steps are made through nonlinearities; block reconstruction makes such steps itself.

    Returns:
        How each was solved for.
    """
    layer_choices: dict[str, Choice] = {}
    examples_here = sum(microbatch.size or 1 for microbatch in execution.microbatches)
    cut_network = execution.cut_network
    layer_or_reason = {layer: pruned_layer_or_reason(layer, cut_network) for layer in cut_network.layers}
    pruned_layers = [pruned_layer for pruned_layer, _ in layer_or_reason.values() if pruned_layer]
    shared = SharedSums(pruned_layers, cut_network.network, choices or ())
    for layer, (pruned_layer, reason) in track(list(layer_or_reason.items()), "refitted layers"):
        if reason:
            warn(f"{layer.name} was not refitted: {reason}", layer.name, f"not refitted: {reason}")
        elif pruned_layer is not None:
            earlier = None if choices is None else choices.get(layer.weight)
            share = examples_here / (examples or examples_here)
            sums = shared.of(pruned_layer)
            choice = refit_layer(execution, pruned_layer, earlier, share=share, has_steps=has_steps, inputs=sums)
            layer_choices.update({} if choice is None else {layer.weight: choice})
            return_free_memory()
    return layer_choices


def refit_behind_cut(
    execution: PairedExecution, layers: Iterable[LinearLayer], choice: Choice | None, rows_share: float = 1.0
) -> None:
    """Refit those of some layers that may read other values than in the dense network.

    A depthwise convolution makes the units that it reads. Before the first operator that lacks them, it gives the kept
    ones what the dense network gives: a refit would change nothing, and run the network from the start.

    Args:
        execution: both networks, the cut one with the dense network's weights.
        layers: the layers, in the order in which they run.
        choice: how each is solved for, on as many rows as quick refits read; None: chosen on all rows.
        rows_share: the fraction of the rows of a quick refit that is read.
    """
    cut_network = execution.cut_network
    position, first_cut = cut_network.network.program.position, cut_network.first_cut
    layers_or_none = [
        pruned_layer_or_reason(layer, cut_network)[0] for layer in layers if position[layer.node] >= first_cut
    ]
    pruned_layers = [pruned_layer for pruned_layer in layers_or_none if pruned_layer is not None]
    shared = SharedSums(pruned_layers, cut_network.network)
    for pruned_layer in track(pruned_layers, "refitted layers"):
        few_rows = round(pruned_layer.few_rows * rows_share) if choice else None
        refit_layer(execution, pruned_layer, choice, few_rows, inputs=shared.of(pruned_layer))


def pruned_layer_or_reason(layer: LinearLayer, cut_network: EmbeddedPrunedNetwork) -> tuple[PrunedLayer | None, str]:
    """Return the pruned layer if it can be refitted, else the reason why not."""
    if not bool(cut_network.mask[layer.outputs].any()) or cut_network.is_removed(layer.node):
        return None, ""
    pruned_layer = PrunedLayer.of(layer, cut_network)
    if pruned_layer is None:
        return None, "its groups of channels differ in size"
    return pruned_layer, ""


def match_means(execution: PairedExecution) -> None:
    """Correct the constant of each layer so that its mean output is the dense layer's, in running order."""
    for layer in execution.cut_network.layers:
        pruned_layer = PrunedLayer.of(layer, execution.cut_network)
        if pruned_layer is not None and pruned_layer.has_constant:
            change = torch.zeros(
                len(pruned_layer.groups), pruned_layer.features.shape[1] + 1, pruned_layer.outputs.shape[1]
            )
            matrix = pruned_layer.matrix(execution.cut_network)
            rows = regression_rows(execution, pruned_layer, matrix, has_interval=False)
            change[:, -1] = torch.cat([batch_rows.targets.double() for batch_rows in rows], 1).mean(1).to(change)
            pruned_layer.write(execution.cut_network, change.double())


def refit_layer(
    execution: PairedExecution,
    pruned_layer: PrunedLayer,
    choice: Choice | None = None,
    most_rows: int | None = None,
    share: float = 1.0,
    has_steps: bool = True,
    inputs: Sequence[FeatureSums] = (),
) -> Choice | None:
    """Refit one layer, through the nonlinearity behind it if that clips.

    Args:
        execution: both networks.
        pruned_layer: the kept features and outputs of the layer.
        choice: the solver's options; by default they are chosen on held-out rows.
        most_rows: the maximal number of rows; by default as many as the layer needs.
        share: the fraction of all examples in the execution.
        has_steps: whether steps are made through a nonlinearity that clips.
        inputs: the sums over the layer's features, of the rows that are fitted and of those held out; by default new
            ones.

    Returns:
        The solver's options; None if the layer's input is that of the dense network.
    """
    context = output_context(execution.cut_network.network, pruned_layer.layer)
    is_clipped = context.cuts_off and (has_steps if choice is None else choice.steps > 0)
    clipped_regression = ClippedRegression(HELD if is_clipped else 0)
    matrix, shift = pruned_layer.matrix(execution.cut_network), None
    sums = SplitMoments(inputs or (FeatureSums(), FeatureSums()), has_held_rows=choice is None)
    for rows in regression_rows(execution, pruned_layer, matrix, most_rows, is_clipped):
        if pruned_layer.has_constant:
            shift = rows.shift_by_means(shift)
        rows = rows.with_weights()
        clipped_regression.add(rows)
        sums.add(rows)
    fitted, held_moments = sums.finish()
    if not any(bool(moments.square.any()) for moments in (fitted, held_moments) if moments is not None):
        return None
    fitted = replace(fitted, floor=penalty_floor(matrix, fitted, pruned_layer.features.shape[1], shift))
    clipped_rows = clipped_regression.all_rows()
    if choice is None:
        assert held_moments is not None
        _warn_if_few(pruned_layer, round((fitted.rows + held_moments.rows) / share))
        choice = select_ridge(fitted, held_moments, clipped_rows, pruned_layer.has_constant)
        fitted = fitted.plus(held_moments)
    if choice.ridge is not None:
        change = solve(fitted, clipped_rows, choice, pruned_layer.has_constant)
        pruned_layer.write(execution.cut_network, change if shift is None else _without_shift(change, shift))
    return choice


def _without_shift(change: Tensor, shift: Tensor) -> Tensor:
    """Convert a change for shifted rows to one for the rows themselves. (groups, features + 1, outputs)"""
    weights = change[:, :-1]
    constant = change[:, -1:] - shift.to(change) @ weights
    return torch.cat([weights, constant], 1)


def _warn_if_few(pruned_layer: PrunedLayer, rows: int) -> None:
    enough = FEW * pruned_layer.features.shape[1]
    if rows < enough:
        warn(
            f"{pruned_layer.layer.name} is refitted with care only: it reads {pruned_layer.features.shape[1]:,} "
            f"values, and the examples show {rows:,} rows of them; about {times_as_many(enough / rows)} examples "
            "would do",
            pruned_layer.layer.name,
            "few rows",
        )
