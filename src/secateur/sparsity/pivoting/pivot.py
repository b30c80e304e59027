"""Pruning by matrix pivoting: a network reordered so that its weight comes to lie in few dense blocks.

After Sredojevic et al. 2017 (arXiv 1712.01084), whose text was not readable: what is here is a reconstruction from its
abstract and its neighbours, as `search` says.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.coupling.network import Network
from secateur.entry import entry_point
from secateur.errors import BudgetError, SurgeryError
from secateur.masking.linear_layers import identity_weight, layers_of
from secateur.options import is_shape
from secateur.sparsity.pivoting.orders import Axes, axes_of, fold_orders, matrices_of
from secateur.sparsity.pivoting.result import PivotedLayer, PivotResult
from secateur.sparsity.pivoting.search import PivotedMatrices, pivot_matrices
from secateur.sparsity.results import RunSettings, whole_plan
from secateur.surgery.lineage import folded_copy, lineage_of, record_cut
from secateur.surgery.recipe import make_recipe
from secateur.tracing import trace
from secateur.training.masks import fading, held_at_zero
from secateur.training.session import training_session
from secateur.utils.globs import match_globs


@entry_point
def pivot(
    model: nn.Module,
    data: Any,
    density: float,
    *,
    test: Any = None,
    shape: tuple[int, int] = (16, 16),
    rounds: int = 1,
    fit: Callable[[nn.Module], object] | None = None,
    tuning_steps: int = 0,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    fade: float | None = None,
    balanced: bool = False,
    skip: str | Sequence[str] | None = None,
    starts: int = 4,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> PivotResult:
    """Reorder a network's units so that its weights come into few dense blocks, and prune all that lies outside.

    Orders of units are folded into the network: what a layer makes in another order is read in that order by all who
    read it, so nothing is gathered at run time. Where inputs are no group of units (the network's own input, flattened
    or concatenated maps) and fill more than one block, the layer gets an order of its own, which costs one gather.

    Args:
        model: the trained model; it is left as it is.
        data: examples, with or without labels, as `secateur.prune` takes them; a few do where nothing is trained.
        density: the fraction of each matrix that stays; of a convolution, of its kernels.
        test: other examples to measure on; by default those of `data`, and the report says so.
        shape: of a block (outputs, inputs).
        rounds: the density falls geometrically over these, each with a new search and with fine-tuning.
        fit: fine-tunes a model, in place; zeros stay zero in it.
        tuning_steps: in place of `fit`: steps of Adam in each round, towards the model's own outputs and labels where
            there are any. 0 for none.
        learning_rate, batch_size: of these steps.
        fade: below 1: before each round's cut the model is fine-tuned once more, while what lies outside of the blocks
            is multiplied by this after every step of an optimizer, and the blocks are chosen anew; .99 in our trials.
        balanced: the same number of blocks in each block row.
        skip: globs of layers that stay whole; by default the last.
        starts: how many starting points the search has.
        checkpoint: a folder to write states of the training to now and then, and to go on from.
        seed: of the random starts, and of the examples drawn.
        progress: whether to show a progress bar.

    Returns:
        The model with its zeros (`result.model`), the one that runs fast (`result.fast`), and the report.

    Raises:
        BudgetError: the density, the shape or the rounds are out of range.
        DataError: the examples can't be used.
        SurgeryError: there is no layer to pivot, or the network depends on the order of its units.

    Example:
        >>> import torch
        >>> layers = [torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU()]
        >>> model = torch.nn.Sequential(*layers, torch.nn.Linear(32, 4))
        >>> found = pivot(model, torch.randn(2, 32), 0.25, shape=(8, 8))
        >>> [(name, int(each.blocks.sum()), each.gather is not None) for name, each in found.layers.items()]
        [('0.weight', 4, True), ('2.weight', 4, False)]
    """
    if not is_shape(shape) or len(shape) != 2:
        raise BudgetError(f"shape={shape!r}: blocks of one and more; give a pair of whole numbers, (outputs, inputs)")
    if fit is not None and tuning_steps:
        raise BudgetError(f"fit= and tuning_steps={tuning_steps} are both given; give one of them")
    for name, parameter in model.named_parameters():
        identity_weight(parameter.detach(), name)
    options = (density, shape, rounds, fade, balanced, tuning_steps, skip)
    session = training_session(
        model, data, test, learning_rate, batch_size, seed, checkpoint, progress, options, trains=tuning_steps > 0
    )  # fmt: skip
    work = folded_copy(model)
    network = trace(work, session.batches)
    axes = _axes(network, skip)
    fit = session.training_by_round(tuning_steps) if tuning_steps else fit

    def chosen(at: float) -> tuple[PivotedMatrices, dict[str, PivotedLayer], dict[str, Tensor]]:
        found = pivot_matrices(
            matrices_of(network, axes), at, shape, balanced, _fixed(axes, network, shape), starts, seed
        )  # fmt: skip
        layers = _placed(work, network, axes, found)
        return found, layers, {name: _entries(work, layer, shape) for name, layer in layers.items()}

    for number in range(1, rounds + 1):
        at = density ** (number / rounds)
        found, layers, stays = chosen(at)
        if fit is not None and fade is not None:
            with fading(work, stays, fade):
                fit(work)
            found, layers, stays = chosen(at)
        with held_at_zero(work, stays):
            pass
        if fit is not None:
            with held_at_zero(work, stays):
                fit(work)
    if lineage_of(work) is None:
        record_cut(work, work, network, make_recipe(work, network, {}, folds=False))  # nothing is cut
    result = PivotResult(
        model=work, plan=whole_plan(network, {"density": density}), layers=layers, shape=shape, density=density,
        is_locally_optimal=found.is_locally_optimal,
    )  # fmt: skip
    note = f"blocks of {shape[0]} x {shape[1]}, {rounds} rounds, {tuning_steps:,} steps in each"
    return result.measured(session, RunSettings("pivoting", note, {"density": density}))


def _axes(network: Network, skip: str | Sequence[str] | None) -> list[Axes]:
    """The layers to pivot, with the orders along them.

    Raises:
        SurgeryError: there is none.
    """
    layers = [layer for layer in layers_of(network) if layer.groups == 1 and layer.inner == 1]
    names = [layer.name for layer in layers]
    whole = names[-1:] if skip is None else match_globs(skip, names, "layer")
    chosen = [layer for layer in layers if layer.name not in whole]
    if not chosen:
        raise SurgeryError(f"{network.title} has no layer to pivot, of: {', '.join(names) or 'none'}")
    return [axes_of(network, layer) for layer in chosen]


def _fixed(axes: Sequence[Axes], network: Network, shape: tuple[int, int]) -> frozenset[str]:
    """Orders that stay: of outputs that are no group's, and of a layer's own inputs where one block holds them all."""
    groups = {group.name for group in network.groups}
    outputs = {own.rows for own in axes if own.rows not in groups}
    return frozenset(outputs | {own.columns for own in axes if own.gathers and len(own.layer.inputs) <= shape[1]})


def _placed(
    model: nn.Module, network: Network, axes: Sequence[Axes], found: PivotedMatrices
) -> dict[str, PivotedLayer]:
    """Orders folded into the model, and each layer's blocks with the gather that it needs."""
    groups = {group.name for group in network.groups}
    moved = fold_orders(model, network, {name: order for name, order in found.orders.items() if name in groups})
    layers = {}
    for each in axes:
        name, gather = each.layer.weight, None
        if each.gathers:
            columns = moved.get(each.layer.weight, {}).get(1, torch.arange(len(each.layer.inputs)))
            now = torch.empty_like(columns)
            now[columns] = torch.arange(len(columns))  # where each of the old inputs is now
            gather = now[torch.from_numpy(found.orders[each.columns].astype(np.int64))]
            gather = None if torch.equal(gather, torch.arange(len(gather))) else gather
        blocks = torch.from_numpy(found.blocks[name].copy())
        layers[name] = PivotedLayer(name, blocks, gather, found.retained[name])
    return layers


def _entries(model: nn.Module, layer: PivotedLayer, shape: tuple[int, int]) -> Tensor:
    """Which entries of a layer's weight lie in its blocks."""
    weight = model.get_parameter(layer.name)
    mask = layer.blocks.repeat_interleave(shape[0], 0).repeat_interleave(shape[1], 1)
    mask = mask[: weight.shape[0], : weight.shape[1]]
    if layer.gather is not None:
        mask = torch.zeros_like(mask).index_copy(1, layer.gather, mask)
    view = mask.view(*mask.shape, *(1 for _ in weight.shape[2:]))
    return view.expand(weight.shape)
