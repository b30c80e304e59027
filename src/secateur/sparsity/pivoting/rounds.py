"""Rounds of matrix pivoting: choose orders and blocks, fold the orders into the model, prune, and fine-tune."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from secateur.coupling.network import Network
from secateur.errors import SurgeryError
from secateur.masking.linear_layers import layers_of
from secateur.options.selections import Selection, match_layers
from secateur.sparsity.pivoting.orders import Axes, axes_of, fold_orders, matrices_of
from secateur.sparsity.pivoting.pivot_matrices import pivot_matrices
from secateur.sparsity.pivoting.pivoted_matrices import PivotedMatrices
from secateur.sparsity.pivoting.result import PivotedLayer
from secateur.training.masks import fading, held_at_zero
from secateur.utils.progress import track

Fit = Callable[[nn.Module], object]


@dataclass(frozen=True, eq=False)
class PivotedModel:
    """A model whose orders are folded into it, with the blocks that were chosen.

    Args:
        layers: the blocks of each layer, by the name of its weight.
        kept: the entries of weights within the blocks, by the name of the weight.
        is_locally_optimal: whether no single step of the search retains more.
    """

    layers: Mapping[str, PivotedLayer]
    kept: Mapping[str, Tensor]
    is_locally_optimal: bool


@dataclass(frozen=True, eq=False)
class PivotRounds:
    """The model to pivot, and the options of the search.

    Args:
        model: the model, which is changed in place.
        network: its trace, which shares its weights.
        axes: the layers to pivot, with the orders along them.
        shape: the shape of a block (outputs, inputs).
        balanced: whether each block row has the same number of blocks.
        starts: the number of starting points of the search.
        seed: the seed of random starting points.
    """

    model: nn.Module
    network: Network
    axes: Sequence[Axes]
    shape: tuple[int, int]
    balanced: bool
    starts: int
    seed: int

    def run(self, density: float, rounds: int, fit: Fit | None, fade: float | None) -> PivotedModel:
        """Prune to a density that falls geometrically over the rounds; arguments as `pivot` takes them."""
        for number in track(range(1, rounds + 1), "rounds"):
            round_density = density ** (number / rounds)
            matrices = self.choose_blocks(round_density)
            if fit is not None and fade is not None:
                with fading(self.model, matrices.kept, fade):
                    fit(self.model)
                matrices = self.choose_blocks(round_density)
            with held_at_zero(self.model, matrices.kept):  # entries outside of the blocks become zero at its end
                pass
            if fit is not None:
                with held_at_zero(self.model, matrices.kept):
                    fit(self.model)
        return matrices

    def choose_blocks(self, density: float) -> PivotedModel:
        """Search orders and blocks of a density, and fold the orders into the model."""
        matrices = pivot_matrices(
            matrices_of(self.network, self.axes), density, self.shape, self.balanced, self._fixed_orders(), self.starts,
            self.seed,
        )  # fmt: skip
        layers = self._fold(matrices)
        kept = {name: _entries_in_blocks(self.model, layer, self.shape) for name, layer in layers.items()}
        return PivotedModel(layers, kept, matrices.is_locally_optimal)

    def _fixed_orders(self) -> frozenset[str]:
        """Return the orders of outputs that are no group's, and of a layer's own inputs where one block holds all."""
        groups = {group.name for group in self.network.groups}
        outputs = {axes.rows for axes in self.axes if axes.rows not in groups}
        inputs = {axes.columns for axes in self.axes if axes.gathers and len(axes.layer.inputs) <= self.shape[1]}
        return frozenset(outputs | inputs)

    def _fold(self, matrices: PivotedMatrices) -> dict[str, PivotedLayer]:
        """Fold orders into the model, and return each layer's blocks with the gather that it needs."""
        groups = {group.name for group in self.network.groups}
        orders = {name: order for name, order in matrices.orders.items() if name in groups}
        moves = fold_orders(self.model, self.network, orders)
        layers = {}
        for axes in self.axes:
            name, gather = axes.layer.weight, None
            if axes.gathers:
                columns = moves.get(name, {}).get(1, torch.arange(len(axes.layer.inputs)))
                positions = torch.empty_like(columns)
                positions[columns] = torch.arange(len(columns))  # the present position of each former input
                gather = positions[torch.from_numpy(matrices.orders[axes.columns].astype(np.int64))]
                gather = None if torch.equal(gather, torch.arange(len(gather))) else gather
            blocks = torch.from_numpy(matrices.blocks[name].copy())
            layers[name] = PivotedLayer(name, blocks, gather, matrices.retained[name])
        return layers


def axes_to_pivot(network: Network, skip: Selection | None) -> list[Axes]:
    """Return the layers to pivot, with the orders along them.

    Raises:
        SurgeryError: There is none.
    """
    layers = [layer for layer in layers_of(network) if layer.groups == 1 and layer.inner == 1]
    names = [layer.name for layer in layers]
    skipped_names = names[-1:]
    if skip is not None:
        skipped_names = match_layers(skip, names, "layer", network.modules, network.title)
    selected_layers = [layer for layer in layers if layer.name not in skipped_names]
    if not selected_layers:
        raise SurgeryError(f"{network.title} has no layer to pivot, of: {', '.join(names) or 'none'}")
    return [axes_of(network, layer) for layer in selected_layers]


def _entries_in_blocks(model: nn.Module, layer: PivotedLayer, shape: tuple[int, int]) -> Tensor:
    """Return the entries of a layer's weight that lie in its blocks, in the weight's shape."""
    weight = model.get_parameter(layer.name)
    mask = layer.blocks.repeat_interleave(shape[0], 0).repeat_interleave(shape[1], 1)
    mask = mask[: weight.shape[0], : weight.shape[1]]
    if layer.gather is not None:
        mask = torch.zeros_like(mask).index_copy(1, layer.gather, mask)
    view = mask.view(*mask.shape, *(1 for _ in weight.shape[2:]))
    return view.expand(weight.shape)
