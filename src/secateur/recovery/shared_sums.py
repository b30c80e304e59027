"""Layers that read the same rows: what is computed of the rows is computed once for all of them."""

import itertools
from collections.abc import Container, Iterable
from typing import Any

from secateur.coupling.network import Network
from secateur.graph.operators import arguments
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.pruned_layer import PrunedLayer
from secateur.recovery.regression_moments import FeatureSums
from secateur.recovery.row_weights import RowWeights
from secateur.recovery.targets import output_context


class SharedSums:
    """The sums over features of layers that are refitted in turn, kept as long as a layer follows that reads the same.

    A layer whose solver options are known is fitted to all rows, any other to those that are not held out: layers share
    sums only with layers of the same kind.

    Args:
        pruned_layers: the layers, in the order in which they run.
        network: the network.
        solved_names: the names of the weights for which the solver's options are known.
    """

    def __init__(
        self, pruned_layers: Iterable[PrunedLayer], network: Network, solved_names: Container[str] = ()
    ) -> None:
        kinds: tuple[list[PrunedLayer], list[PrunedLayer]] = [], []
        for pruned_layer in pruned_layers:
            kinds[pruned_layer.layer.weight in solved_names].append(pruned_layer)
        pairs = [
            pair for kind in kinds for alike in layers_by_rows(kind, network) for pair in itertools.pairwise(alike)
        ]
        self._following = {first.layer: second.layer for first, second in pairs}
        self._waiting: dict[LinearLayer, tuple[FeatureSums, FeatureSums]] = {}

    def of(self, pruned_layer: PrunedLayer) -> tuple[FeatureSums, FeatureSums]:
        """Return the sums for a layer, of the rows that are fitted and of those held out."""
        following = self._following.get(pruned_layer.layer)
        sums = self._waiting.pop(pruned_layer.layer, None)
        if sums is None:
            is_shared = following is not None
            sums = FeatureSums(is_shared), FeatureSums(is_shared)
        if following is not None:
            self._waiting[following] = sums
        return sums


def layers_by_rows(pruned_layers: Iterable[PrunedLayer], network: Network) -> list[list[PrunedLayer]]:
    """Return layers in lists of those that read the same rows, such as the projections of one value in attention.

    Args:
        pruned_layers: the layers, in the order in which they run.
        network: the network.
    """
    by_key: dict[Any, list[PrunedLayer]] = {}
    for pruned_layer in pruned_layers:
        by_key.setdefault(_rows_key(pruned_layer, network), []).append(pruned_layer)
    return list(by_key.values())


def _rows_key(pruned_layer: PrunedLayer, network: Network) -> Any:
    """Return what is equal for layers that read the same rows; the layer itself where its rows are its own."""
    layer = pruned_layer.layer
    is_plain = type(layer) is LinearLayer and not layer.is_convolution and layer.groups == 1
    if not is_plain or RowWeights(output_context(network, layer)).may_differ:
        return layer
    features = tuple(pruned_layer.features.flatten().tolist())
    return arguments(layer.node)[layer.argument], layer.dim, pruned_layer.has_constant, features
