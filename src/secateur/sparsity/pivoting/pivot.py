"""Pruning by matrix pivoting: a network reordered so that its weight comes to lie in few dense blocks.

After Sredojevic et al. 2017 (arXiv 1712.01084), whose text was not readable: what is here is a reconstruction from its
abstract and its neighbours, as `search` says.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.api import trace
from secateur.errors import BudgetError, StorageError, SurgeryError
from secateur.files import reading, record_writer
from secateur.names import matched
from secateur.network.layers import finite, layers_of
from secateur.network.units import Network
from secateur.network.wrappers import unwrapped
from secateur.sparsity.pivoting.orders import Axes, axes_of, fold_orders, matrices_of
from secateur.sparsity.pivoting.packed import KERNELS, fastest_of
from secateur.sparsity.pivoting.saved import PIVOT, SavedPivot, check_pivot, read_pivot, saved_pivot
from secateur.sparsity.pivoting.search import Pivoted, pivoted
from secateur.sparsity.timing import inputs_of, replace
from secateur.storage import check_companion, prepare, save_with
from secateur.surgery.lineage import folded_copy, lineage_of, record_cut
from secateur.surgery.recipe import make_recipe
from secateur.training.masks import fading, held_at_zero


@dataclass(frozen=True, eq=False)
class PivotedLayer:
    """One layer's blocks.

    Args:
        name: of its weight.
        blocks: which stay (block rows, block columns).
        gather: for each place of the block order the input that sits there, None where they are in order.
        retained: the part of the absolute weight that lay in the blocks when they were chosen last.
    """

    name: str
    blocks: Tensor
    gather: Tensor | None
    retained: float


@dataclass(frozen=True, eq=False)
class PivotResult:
    """A network of few dense blocks.

    Args:
        model: the model: same class and shapes, its units in another order, zero outside of the blocks.
        layers: by the names of their weights.
        shape: of a block (rows, columns).
        density: that was asked for.
        network: the trace of the model as it was.
    """

    model: nn.Module
    layers: Mapping[str, PivotedLayer]
    shape: tuple[int, int]
    density: float
    network: Network

    def __str__(self) -> str:
        rows = [
            f"  {each.name}: {float(each.blocks.double().mean()):.1%} of {each.blocks.numel()} blocks hold "
            f"{each.retained:.1%} of the weight, {'one gather' if each.gather is not None else 'no gather'}"
            for each in self.layers.values()
        ]
        return "\n".join([f"blocks of {self.shape[0]} x {self.shape[1]}, density {self.density:.1%}", *rows])

    def packed(self, inputs: Any) -> tuple[nn.Module, dict[str, str]]:
        """A copy whose linear layers and convolutions compute only their blocks, where that is faster on this machine.

        Args:
            inputs: a batch of the size that will be used; each layer is timed on what it gets of it.

        Returns:
            The copy, and the kernel that each layer got: "tiles", "bsr", or "dense" where that is fastest.
        """
        small = copy.deepcopy(self.model)
        paths = {name: name.rpartition(".")[0] for name in self.layers}
        seen = inputs_of(small, paths.values(), inputs)
        chosen = {}
        for name, each in self.layers.items():
            path, module = paths[name], small.get_submodule(paths[name])
            chosen[name] = "dense"
            if type(module) not in KERNELS or name != f"{path}.weight" or path not in seen:
                continue  # transposed, or a weight that the model's own code multiplies by
            weight = module.get_parameter("weight").detach()
            weight = weight if each.gather is None else weight[:, each.gather]
            chosen[name], made, _ = fastest_of(module, weight, each.blocks, self.shape, each.gather, seen[path])
            replace(small, path, made)
        return small, chosen

    def save(self, folder: str | Path) -> None:
        """Write recipe.json, weights.safetensors and pivot.json; `secateur.load` and `load_pivoted` read them.

        Raises:
            StorageError: they can't be written; files that were there before are as they were.
        """
        blocks = record_writer(saved_pivot(self.shape, self.density, self.layers))
        save_with(self.model, Path(folder), {PIVOT: blocks})


def pivot(
    model: nn.Module,
    example_inputs: Any,
    density: float,
    *,
    shape: tuple[int, int] = (16, 16),
    rounds: int = 1,
    fit: Callable[[nn.Module], object] | None = None,
    fade: float | None = None,
    balanced: bool = False,
    skip: str | Sequence[str] | None = None,
    starts: int = 4,
    seed: int = 0,
) -> PivotResult:
    """Reorder a network's units so that its weights come into few dense blocks, and prune all that lies outside.

    Orders of units are folded into the network: what a layer makes in another order is read in that order by all who
    read it, so nothing is gathered at run time. Where inputs are no group of units (the network's own input, flattened
    or concatenated maps) the layer gets an order of its own, which costs one gather.

    Args:
        model: the trained model; it is left as it is.
        example_inputs: as `trace` takes them.
        density: the fraction of each matrix that stays; of a convolution, of its kernels.
        shape: of a block (outputs, inputs).
        rounds: the density falls geometrically over these, each with a new search and with fine-tuning.
        fit: fine-tunes a model, in place; zeros stay zero in it.
        fade: below 1: before each round's cut the model is fine-tuned once more, while what lies outside of the blocks
            is multiplied by this after every step of an optimizer, and the blocks are chosen anew; .99 in our trials.
        balanced: the same number of blocks in each block row.
        skip: globs of layers that stay whole; by default the last.
        starts: how many starting points the search has.
        seed: of the random ones among them.

    Raises:
        BudgetError: the density, the shape or the rounds are out of range.
        SurgeryError: there is no layer to pivot, or the network depends on the order of its units.

    Example:
        >>> import torch
        >>> layers = [torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU()]
        >>> model = torch.nn.Sequential(*layers, torch.nn.Linear(32, 4))
        >>> found = pivot(model, torch.randn(2, 32), 0.25, shape=(8, 8))
        >>> [(name, int(each.blocks.sum()), each.gather is not None) for name, each in found.layers.items()]
        [('0.weight', 4, True), ('2.weight', 4, False)]
    """
    if not 0 < density <= 1 or min(shape) < 1 or rounds < 1 or starts < 1:
        raise BudgetError(
            f"density={density}, shape={shape}, rounds={rounds}, starts={starts}: a fraction of the weights, blocks of "
            "one and more, one round and more"
        )
    if fade is not None and not 0 < fade < 1:
        raise BudgetError(f"fade={fade} is no factor between 0 and 1")
    work = folded_copy(unwrapped(model))
    for name, parameter in work.named_parameters():
        finite(parameter.detach(), name)
    network = trace(work, example_inputs)
    axes = _axes(network, skip)

    def chosen(at: float) -> tuple[dict[str, PivotedLayer], dict[str, Tensor]]:
        found = pivoted(matrices_of(network, axes), at, shape, balanced, _fixed(axes, network, shape), starts, seed)
        layers = _placed(work, network, axes, found)
        return layers, {name: _entries(work, each, shape) for name, each in layers.items()}

    for number in range(1, rounds + 1):
        at = density ** (number / rounds)
        layers, stays = chosen(at)
        if fit is not None and fade is not None:
            with fading(work, stays, fade):
                fit(work)
            layers, stays = chosen(at)
        with held_at_zero(work, stays):
            pass
        if fit is not None:
            with held_at_zero(work, stays):
                fit(work)
    if lineage_of(work) is None:
        record_cut(work, work, network, make_recipe(work, network, {}, folds=False))  # nothing is cut
    return PivotResult(work, layers, shape, density, network)


def load_pivoted(model: nn.Module, folder: str | Path, example_inputs: Any) -> PivotResult:
    """Read what `PivotResult.save` wrote, onto a fresh model.

    Raises:
        StorageError: a file is missing, damaged, or of another network.
    """
    folder = Path(folder)
    prepared = prepare(model, folder)
    with reading(folder) as path_of:
        record = read_pivot(path_of(PIVOT))
        if isinstance(record, SavedPivot):
            check_companion(folder, path_of, PIVOT)
    try:
        check_pivot(record, prepared.tensors)
    except StorageError as failure:
        raise StorageError(f"{folder / PIVOT} does not belong to this {type(model).__name__}: {failure}") from failure
    layers = {
        name: PivotedLayer(
            name,
            torch.tensor(layer.blocks, dtype=torch.bool),
            None if layer.gather is None else torch.tensor(layer.gather),
            layer.retained,
        )
        for name, layer in record.layers.items()
    }
    loaded = prepared.commit()
    return PivotResult(loaded, layers, record.shape, record.density, trace(loaded, example_inputs))


def _axes(network: Network, skip: str | Sequence[str] | None) -> list[Axes]:
    """The layers to pivot, with the orders along them.

    Raises:
        SurgeryError: there is none.
    """
    layers = [layer for layer in layers_of(network) if layer.groups == 1 and layer.inner == 1]
    names = [layer.name for layer in layers]
    whole = names[-1:] if skip is None else matched(skip, names, "layer")
    chosen = [layer for layer in layers if layer.name not in whole]
    if not chosen:
        raise SurgeryError(f"{network.title} has no layer to pivot, of: {', '.join(names) or 'none'}")
    return [axes_of(network, layer) for layer in chosen]


def _fixed(axes: Sequence[Axes], network: Network, shape: tuple[int, int]) -> frozenset[str]:
    """Orders that stay: of outputs that are no group's, and of a layer's own inputs where one block holds them all."""
    groups = {group.name for group in network.groups}
    outputs = {own.rows for own in axes if own.rows not in groups}
    return frozenset(outputs | {own.columns for own in axes if own.gathers and len(own.layer.inputs) <= shape[1]})


def _placed(model: nn.Module, network: Network, axes: Sequence[Axes], found: Pivoted) -> dict[str, PivotedLayer]:
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
