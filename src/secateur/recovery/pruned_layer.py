"""The kept features and outputs of a layer, and its rows for a refit."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.masking.layer_rows import rows_at, with_ones
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.utils.dtypes import at_least_single

MOST_ROWS = 10_000
ROUGHLY = 4
ROWS_PER_FEATURE = 16


def row_limit(features: int) -> int:
    """Return the number of rows that suffices for a refit of so many features.

    Examples:
        >>> row_limit(10), row_limit(1000)
        (10000, 16000)
    """
    return max(MOST_ROWS, ROWS_PER_FEATURE * features)


def few_rows_of(features: int) -> int:
    """Return the number of rows that suffices for a quick refit of so many features, or for their covariance.

    Examples:
        >>> few_rows_of(10), few_rows_of(1000)
        (2500, 4000)
    """
    return row_limit(features) // ROUGHLY


@lru_cache(maxsize=1024)
def draw_positions(count: int, most_positions: int, seed: int) -> Tensor:
    """Draw at most so many of the positions of an example; with the same seed fewer are the first of more.

    Layers with images of one size draw the same positions for a microbatch, in every plan. They must not be changed.
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most_positions].clone()


def results_at(layer: LinearLayer, examples: int, positions: Tensor, value: Tensor) -> Tensor:
    """Return a value in the shape of a layer's result at some positions of every example. (rows, outputs)"""
    return rows_at(layer.results(value, examples), positions).flatten(0, 1)


@dataclass(frozen=True)
class PrunedLayer:
    """The kept features and outputs of a layer.

    Args:
        layer: the layer.
        groups: the numbers of its groups (groups,).
        features, outputs: of each group (groups, ...).
        has_constant: whether a constant can be added to its result.
    """

    layer: LinearLayer
    groups: Tensor
    features: Tensor
    outputs: Tensor
    has_constant: bool

    @staticmethod
    def of(layer: LinearLayer, cut_network: EmbeddedPrunedNetwork) -> "PrunedLayer | None":
        """Return the pruned layer; None if its groups keep different numbers, or its block was removed."""
        mask = cut_network.mask
        if cut_network.is_removed(layer.node):
            return None
        outputs, features = mask[layer.outputs].view(layer.groups, -1), layer.features(mask)
        groups = torch.nonzero(outputs.any(1)).flatten()
        outputs, features = outputs[groups], features[groups]
        if len(groups) == 0 or len(outputs.sum(1).unique()) > 1 or len(features.sum(1).unique()) > 1:
            return None
        features, outputs = (torch.nonzero(is_kept)[:, 1].view(len(groups), -1) for is_kept in (features, outputs))
        return PrunedLayer(layer, groups, features, outputs, cut_network.has_constant(layer))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a change: (groups, features + 1 for the constant, outputs)."""
        return len(self.groups), self.features.shape[1] + self.has_constant, self.outputs.shape[1]

    @property
    def most_rows(self) -> int:
        """The number of rows that suffices for a refit."""
        return row_limit(self.features.shape[1])

    @property
    def few_rows(self) -> int:
        """The number of rows that suffices for a quick refit, or for an estimate of its input's covariance."""
        return few_rows_of(self.features.shape[1])

    def read(self, x: Tensor, examples: int, most_rows: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return its input at some positions of every example (groups, rows, features + 1), and the positions."""
        positions = self.layer.positions(x, examples)
        drawn_positions = draw_positions(positions.count, most_rows, seed).to(x.device)
        if x.shape[self.layer.dim] == len(self.layer.inputs):
            return self.inputs_of(at_least_single(positions.rows(drawn_positions, self.layer.groups))), drawn_positions
        rows = positions.rows(drawn_positions, len(self.groups), self.has_constant)  # of what stays alone
        return at_least_single(rows).transpose(0, 1), drawn_positions

    def inputs_of(self, rows: Tensor) -> Tensor:
        """Select the kept features of rows (rows, groups, features), and append 1 for the constant, if it has one."""
        by_group = self._by_group(rows)
        if self.features.shape[1] == by_group.shape[2]:
            return with_ones(by_group) if self.has_constant else by_group
        if not self.has_constant:
            return _select(by_group, self.features)
        inputs = _select(by_group, F.pad(self.features, (0, 1)))  # with a column for the constant, in one copy
        inputs[..., -1] = 1
        return inputs

    def outputs_of(self, results: Tensor) -> Tensor:
        """Select the kept outputs of results (rows, outputs of all groups). (groups, rows, outputs)"""
        by_group = self._by_group(results.unflatten(1, (self.layer.groups, -1)))
        return by_group if self.outputs.shape[1] == by_group.shape[2] else _select(by_group, self.outputs)

    def _by_group(self, values: Tensor) -> Tensor:
        """Return the values (rows, groups, ...) of the groups that are kept. (groups, rows, ...)"""
        by_group = values.transpose(0, 1)
        return by_group if len(self.groups) == self.layer.groups else by_group[self.groups.to(values.device)]

    @property
    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """The indices of kept entries in the layer's matrices."""
        return self.groups[:, None, None], self.outputs[:, :, None], self.features[:, None, :]

    def matrix(self, cut_network: EmbeddedPrunedNetwork) -> Tensor:
        """Return the weights and the constant, without the batch norm behind. (groups, outputs, features + 1)"""
        kept = cut_network.state.compact(self.layer.weight)
        is_all = self.has_all_of(kept)
        small = (
            self.layer.matrix(kept) if is_all else self.layer.matrix(cut_network.state[self.layer.weight])[self.entries]
        )
        small = at_least_single(small)
        if not self.has_constant:
            return small
        constant = cut_network.constant(self.layer)
        all_constants = torch.zeros(len(self.layer.outputs)) if constant is None else constant
        column = all_constants.view(self.layer.groups, -1)[self.groups[:, None], self.outputs]
        return torch.cat([small, column.to(small)[..., None]], 2)

    def weight(self, old: Tensor, change: Tensor) -> Tensor:
        """Return the layer's weight after a change (groups, features + 1, outputs)."""
        change = change.to(old.device)
        weights = change.transpose(1, 2)[..., : self.features.shape[1]]
        matrix = self.layer.matrix(old)
        changed_matrix = torch.zeros_like(matrix, dtype=change.dtype).index_put_(self.entries, weights).add_(matrix)
        return self.layer.weight_of(changed_matrix, old).to(old.dtype)

    def has_all_of(self, weight: Tensor) -> bool:
        """Return whether the kept features and outputs are all of those of a weight in the dense or the cut shape."""
        is_plain = self.layer.groups == 1 and self.layer.inner == 1
        return is_plain and self.layer.matrix(weight).shape[1:] == (self.outputs.shape[1], self.features.shape[1])

    def kept_weight(self, old: Tensor, change: Tensor) -> Tensor:
        """Return a weight that has the kept entries alone after a change (groups, features + 1, outputs)."""
        weights = change.to(old.device).transpose(1, 2)[..., : self.features.shape[1]]
        matrix = self.layer.matrix(old) + weights  # in the layout of the first, so that a model can share its memory
        return self.layer.weight_of(matrix, old).to(old.dtype)

    def constant_change(self, change: Tensor) -> Tensor:
        """Return the change of the layer's constant, from a change (groups, features + 1, outputs). (all outputs,)"""
        constants = change.new_zeros(self.layer.groups, len(self.layer.outputs) // self.layer.groups)
        return constants.index_put((self.groups[:, None], self.outputs), change[:, -1]).flatten()

    def write(self, cut_network: EmbeddedPrunedNetwork, change: Tensor) -> None:
        """Add a change (groups, features + 1, outputs) to the weights and the constant."""
        name = self.layer.weight
        kept = cut_network.state.compact(name)
        if self.has_all_of(kept):
            cut_network.state.replace_compact(name, self.kept_weight(kept, change))
        else:
            cut_network.state[name] = self.weight(cut_network.state[name], change)
        if self.has_constant:
            cut_network.add(self.layer, self.constant_change(change))


def _select(values: Tensor, positions: Tensor) -> Tensor:
    """Select positions (groups, selected) of values (groups, rows, features). (groups, rows, selected)"""
    positions = positions.to(values.device)
    if len(positions) == 1:
        return values.index_select(2, positions[0])
    return values.gather(2, positions[:, None].expand(-1, values.shape[1], -1))
