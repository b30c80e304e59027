"""Layers refitted by least squares: fed by the cut network, each gives what it gave in the dense one.

In the order in which they run, the weights and the constant of each linear layer or convolution are solved for so that
its output comes as near as it can to the dense layer's, on the examples. Where the output is added to something that is
there already, a residual stream, the error of that is made good as well. The ridge pulls towards the cut weights, not
towards zero, and is chosen on examples held out of the fit.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from secateur.evaluation.holdout import holdout_mask
from secateur.graph.operators import arguments
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution, value_of
from secateur.recovery.ridge import Choice, ClippedRegression, RegressionMoments, RegressionRows, select_ridge, solve
from secateur.recovery.targets import output_context
from secateur.utils.dtypes import at_least_single

MOST_FEATURES = 5_000
MOST_ROWS = 10_000
ROUGHLY = 4
ROWS_PER_FEATURE = 16
FEW = 2
HELD = 1 << 28
Choices = Mapping[str, Choice]


@dataclass(frozen=True)
class PrunedLayer:
    """What stays of a layer.

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
    def of(layer: LinearLayer, within: EmbeddedPrunedNetwork) -> "PrunedLayer | None":
        """None where the layer's groups keep different numbers, or the block is gone in which it lies."""
        mask = within.mask
        if within.is_gone(layer.node):
            return None
        outputs, features = mask[layer.outputs].view(layer.groups, -1), layer.features(mask)
        groups = torch.nonzero(outputs.any(1)).flatten()
        outputs, features = outputs[groups], features[groups]
        if len(groups) == 0 or len(outputs.sum(1).unique()) > 1 or len(features.sum(1).unique()) > 1:
            return None
        features, outputs = (torch.nonzero(each)[:, 1].view(len(groups), -1) for each in (features, outputs))
        return PrunedLayer(layer, groups, features, outputs, within.has_constant(layer))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a change: (groups, features + 1 for the constant, outputs)."""
        return len(self.groups), self.features.shape[1] + self.has_constant, self.outputs.shape[1]

    @property
    def most_rows(self) -> int:
        """How many rows tell enough of it."""
        return max(MOST_ROWS, ROWS_PER_FEATURE * self.features.shape[1])

    @property
    def few_rows(self) -> int:
        """How many rows tell about what it reads, where a rough answer will do."""
        return self.most_rows // ROUGHLY

    def read(self, x: Tensor, examples: int, most: int, seed: int) -> tuple[Tensor, Tensor]:
        """What it reads at some places of every example (groups, rows, features + 1), and which these are (places,)."""
        places = self.layer.places(x, examples)
        draws = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(places.count, generator=draws)[:most].to(x.device)
        if x.shape[self.layer.dim] == len(self.layer.inputs):
            return self.inputs_of(at_least_single(places.rows(chosen, self.layer.groups))), chosen
        rows = at_least_single(places.rows(chosen, len(self.groups)))  # what stays alone (rows, groups, features)
        return self._with_constant(rows.transpose(0, 1)), chosen

    def inputs_of(self, rows: Tensor) -> Tensor:
        """Of rows (rows, groups, features) what stays, and 1 for the constant if the layer can have one.
        (groups, rows, features + 1)"""
        return self._with_constant(self._picked(rows, self.features))

    def _with_constant(self, rows: Tensor) -> Tensor:
        return torch.cat([rows, torch.ones_like(rows[..., :1])], 2) if self.has_constant else rows

    def outputs_of(self, results: Tensor) -> Tensor:
        """Of results (rows, outputs of all groups) what stays. (groups, rows, outputs)"""
        return self._picked(results.unflatten(1, (self.layer.groups, -1)), self.outputs)

    def _picked(self, values: Tensor, places: Tensor) -> Tensor:
        index = places.to(values.device)[:, None].expand(-1, len(values), -1)
        return values.transpose(0, 1)[self.groups.to(values.device)].gather(2, index)

    @property
    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where what stays lies in the layer's matrices."""
        return self.groups[:, None, None], self.outputs[:, :, None], self.features[:, None, :]

    def matrix(self, within: EmbeddedPrunedNetwork) -> Tensor:
        """The weights and the constant, the batch norm behind left aside. (groups, outputs, features + 1)"""
        small = at_least_single(self.layer.matrix(within.state[self.layer.weight])[self.entries])
        if not self.has_constant:
            return small
        held = within.constant(self.layer)
        whole = torch.zeros(len(self.layer.outputs)) if held is None else held
        column = whole.view(self.layer.groups, -1)[self.groups[:, None], self.outputs]
        return torch.cat([small, column.to(small)[..., None]], 2)

    def weight(self, old: Tensor, change: Tensor) -> Tensor:
        """The layer's weight after a change (groups, features + 1, outputs)."""
        change = change.to(old.device)
        weights = change.transpose(1, 2)[..., : self.features.shape[1]]
        matrix = self.layer.matrix(old).to(change)
        whole = torch.zeros_like(matrix).index_put(self.entries, weights)
        return self.layer.weight_of(matrix + whole, old).to(old.dtype)

    def added(self, change: Tensor) -> Tensor:
        """What a change (groups, features + 1, outputs) adds to the layer's constant. (outputs of all groups,)"""
        whole = change.new_zeros(self.layer.groups, len(self.layer.outputs) // self.layer.groups)
        return whole.index_put((self.groups[:, None], self.outputs), change[:, -1]).flatten()

    def write(self, within: EmbeddedPrunedNetwork, change: Tensor) -> None:
        """Add a change (groups, features + 1, outputs) to the weights and the constant."""
        within.state[self.layer.weight] = self.weight(within.state[self.layer.weight], change)
        if self.has_constant:
            within.add(self.layer, self.added(change))


def refit(lockstep: PairedExecution, choices: Choices | None = None, examples: int | None = None) -> Choices:
    """Refit every layer in the order in which they run.

    Args:
        lockstep: both networks.
        choices: how layers were solved for before, by the names of their weights, to do the same with these examples.
        examples: how many there are in all, those held out of it included; a warning tells of layers for which these
            are few.

    Returns:
        How each was solved for.
    """
    made: dict[str, Choice] = {}
    own = sum(cell.size or 1 for cell in lockstep.cells)
    for layer in layers_of(lockstep.within.network):
        part, reason = pruned_layer_or_reason(layer, lockstep.within)
        if reason:
            warnings.warn(f"{layer.name} was not refitted: {reason}", stacklevel=2)
        elif part is not None:
            earlier = None if choices is None else choices.get(layer.weight)
            choice = refit_layer(lockstep, part, earlier, share=own / (examples or own))
            made.update({} if choice is None else {layer.weight: choice})
    return made


def pruned_layer_or_reason(layer: LinearLayer, within: EmbeddedPrunedNetwork) -> tuple[PrunedLayer | None, str]:
    """What stays of a layer if it can be solved for, else why it can't."""
    if not bool(within.mask[layer.outputs].any()) or within.is_gone(layer.node):
        return None, ""
    part = PrunedLayer.of(layer, within)
    if part is None:
        return None, "its groups of channels differ in size"
    features = part.features.shape[1]
    if features > MOST_FEATURES:
        return None, f"it reads {features:,} values, {MOST_FEATURES:,} are the most"
    return part, ""


def match_means(lockstep: PairedExecution) -> None:
    """Give each layer the constant with which its mean output is the dense layer's, in the order in which they run."""
    for layer in layers_of(lockstep.within.network):
        part = PrunedLayer.of(layer, lockstep.within)
        if part is not None and part.has_constant:
            change = torch.zeros(len(part.groups), part.features.shape[1] + 1, part.outputs.shape[1])
            lacking = [rows.missing.double() for rows in rows_of(lockstep, part)]
            change[:, -1] = torch.cat(lacking, 1).mean(1).to(change)
            part.write(lockstep.within, change.double())


def refit_layer(
    lockstep: PairedExecution,
    part: PrunedLayer,
    choice: Choice | None = None,
    most: int | None = None,
    share: float = 1.0,
) -> Choice | None:
    """Solve for what stays of one layer; where a nonlinearity behind cuts off, through it.

    Args:
        lockstep: both networks.
        part: what stays of the layer.
        choice: how; by default as rows held out say.
        most: rows; by default as many as tell enough of the layer.
        share: the part of all examples that these are.

    Returns:
        How it was solved for; None where it is fed as in the dense network.
    """
    sums: list[RegressionMoments | None] = [None, None]
    is_clipped = output_context(lockstep.within.network, part.layer).cuts_off and (choice is None or choice.steps > 0)
    clipped = ClippedRegression(HELD if is_clipped else 0)
    shift: Tensor | None = None
    for rows in rows_of(lockstep, part, most):
        if part.has_constant:  # about the first cell's means, so that the penalty is on what varies
            shift = rows.features[..., :-1].mean(1, keepdim=True) if shift is None else shift
            rows = rows.shifted(shift)
        clipped.add(rows)
        for at, each in enumerate((rows.where(~rows.held), rows.where(rows.held)) if choice is None else (rows,)):
            moments = RegressionMoments.of(each.features, each.missing)
            before = sums[at]
            sums[at] = moments if before is None else before + moments
    fitted, held = sums
    assert fitted is not None
    both = fitted if held is None else fitted + held
    if not bool(both.square.any()):
        return None
    joined = clipped.joined()
    if choice is None:
        assert held is not None
        _warn_if_few(part, round(both.rows / share))
        choice = select_ridge(fitted, held, joined, part.has_constant)
    if choice.ridge is not None:
        change = solve(both, joined, choice, part.has_constant)
        part.write(lockstep.within, change if shift is None else _moved(change, shift))
    return choice


def _moved(change: Tensor, shift: Tensor) -> Tensor:
    """A change (groups, features + 1, outputs) for rows as they are, from one for rows less a shift."""
    weights = change[:, :-1]
    constant = change[:, -1:] - shift.to(change) @ weights
    return torch.cat([weights, constant], 1)


def _warn_if_few(part: PrunedLayer, rows: int) -> None:
    needed = FEW * part.features.shape[1]
    if rows < needed:
        warnings.warn(
            f"{part.layer.name} is refitted with care only: it reads {part.features.shape[1]:,} values, and the "
            f"examples show {rows:,} rows of them; about {needed / rows:.1f} times as many examples would do",
            stacklevel=3,
        )


def rows_of(lockstep: PairedExecution, part: PrunedLayer, most: int | None = None) -> Iterator[RegressionRows]:
    """Cell by cell what a layer reads, and what its output lacks, of at most so many rows."""
    layer, within = part.layer, lockstep.within
    most, examples = most or part.most_rows, sum(cell.size or 1 for cell in lockstep.cells)
    matrix, aim, seen = part.matrix(within), output_context(within.network, layer), 0
    own = within.fixed()
    for cell, dense, cut in lockstep.beside(layer.node):
        x = value_of(cut, own, arguments(layer.node)[layer.argument])
        size = lockstep.cells[cell].size or 1
        rows, chosen = part.read(x, size, math.ceil(most / examples), cell)
        goal = aim.goal(partial(_results_at, layer, size, chosen), dense, cut, within)
        is_held = holdout_mask(size, seen, examples)
        seen += size
        count = rows.shape[1]
        if count % size:  # the first axis is not the examples
            is_held = holdout_mask(count, 0, count)
        is_held = is_held.repeat_interleave(count // len(is_held)).to(x.device)
        given = rows @ matrix.transpose(1, 2)
        wanted, least, most_ = (part.outputs_of(each) - given for each in (goal.wanted, goal.least, goal.most))
        yield RegressionRows(rows, wanted, least, most_, is_held)


def _results_at(layer: LinearLayer, examples: int, places: Tensor, value: Tensor) -> Tensor:
    """Of a value in the shape of a layer's result what lies at some places of every example. (rows, outputs)"""
    return layer.results(value, examples)[:, places].flatten(0, 1)
