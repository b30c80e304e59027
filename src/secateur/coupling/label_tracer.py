"""Label tracing: run the program on integers that say which unit each entry of each tensor belongs to.

Every axis of every parameter gets fresh labels, one per index. An activation is a tensor of labels; label 0 is frozen:
it can't be cut. Operators couple labels that must be removed together and freeze those that can't be removed. Nothing
is decided before the end, when the connected components of the couplings are the units.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.labels import (
    Labels,
    ParameterAxis,
    Weight,
    broadcast_labels,
    determines,
    entries_along,
    frozen_labels,
    labelled_axes,
    squeeze_expanded,
    unique_pairs,
)
from secateur.coupling.trace_records import (
    AttentionLabels,
    AxisUses,
    Couplings,
    ExpertLabels,
    Freeze,
    LabelSpace,
    OperatorNotes,
    TracingScope,
)
from secateur.graph.operators import module_path, operator_name
from secateur.graph.random_draws import draw_behind

MEETS = "meets a tensor that can't be cut"


@dataclass
class LabelTracer:
    """The state of one walk of label tracing through a program.

    Args:
        scope: the kinds of units that the walk looks for.
        space: the labels that exist.
        couplings: labels that are removed together, or not at all.
        uses: the axes of parameters that operators use.
        attention: labels of heads.
        experts: labels of experts.
        notes: facts about single operators.
    """

    scope: TracingScope = field(default_factory=TracingScope)
    space: LabelSpace = field(default_factory=LabelSpace)
    couplings: Couplings = field(default_factory=Couplings)
    uses: AxisUses = field(default_factory=AxisUses)
    attention: AttentionLabels = field(default_factory=AttentionLabels)
    experts: ExpertLabels = field(default_factory=ExpertLabels)
    notes: OperatorNotes = field(default_factory=OperatorNotes)

    def weight(self, name: str, shape: Iterable[int]) -> Labels:
        """Give fresh labels to every axis of a parameter; a scalar has none."""
        shape = tuple(shape)
        if not shape:
            return frozen_labels(())
        labels = tuple(self._fresh_labels(name, axis, shape) for axis in range(len(shape)))
        return Weight(name, tuple((name, axis) for axis in range(len(shape))), labels)

    def _fresh_labels(self, name: str, axis: int, shape: tuple[int, ...]) -> Tensor:
        lengths, aliases = self.scope.stack_lengths, self.scope.head_labels
        if lengths and shape[axis] not in lengths:
            self.space.unlabelled.add((name, axis))
            return frozen_labels(shape)
        labels = self.space.add(name, axis, shape[axis])
        if aliases is not None:
            self.couplings.pairs.append(torch.stack([labels, aliases[labels]]))
            labels = aliases[labels]
        return broadcast_labels(labels, axis, shape)

    def constant(self, node: Node, shape: Sequence[int], axes: Iterable[int]) -> Labels:
        """Give labels to a result that is the same all along some axes: it gets as many entries as what it meets."""
        name = f"%{node.name}"
        self.space.constants.add(name)
        weight, axes = self.weight(name, shape), tuple(axes)
        if isinstance(weight, Tensor) or not axes:
            return frozen_labels(shape)
        fresh = [torch.unique(squeeze_expanded(weight.labels[axis])) for axis in axes]
        self.space.unmatched = torch.cat([self.space.unmatched, *fresh])
        keys = tuple(weight.keys[axis] for axis in axes)
        return Weight(name, keys, tuple(weight.labels[axis] for axis in axes), is_plain=False)

    def constant_entries(self, name: str, length: int) -> Tensor:
        """Label entries along one axis that hold a constant: as many as the units that they meet, (length,)."""
        self.space.constants.add(name)
        weight = self.weight(name, (length,))
        labels = weight.labels[0].contiguous() if isinstance(weight, Weight) else frozen_labels((length,)).contiguous()
        self.space.unmatched = torch.cat([self.space.unmatched, labels[labels > 0]])
        return labels

    def is_constant(self, value: Labels) -> bool:
        """Return whether a value comes from operators that make constants alone, and from no parameter or buffer."""
        names = [name for name, _ in value.keys] if isinstance(value, Weight) else []
        return bool(names) and all(name in self.space.constants for name in names)

    def couple(self, a: Tensor, b: Tensor, node: Node, reason: str = MEETS) -> None:
        """Couple the entries of a and b (broadcast together) that meet; freeze those that meet label 0.

        Args:
            a: a tensor of labels.
            b: another.
            node: the operator in which they meet.
            reason: the reason of a freeze.
        """
        pairs = unique_pairs(a, b)
        frozen = (pairs == 0).any(0)
        self.freeze(pairs[:, frozen], node, reason)
        pairs = pairs[:, ~frozen & (pairs[0] != pairs[1])]
        if not pairs.shape[1]:
            return
        self.couplings.pairs.append(pairs)
        if len(self.space.unmatched):
            constant = torch.isin(pairs, self.space.unmatched)
            matched_pairs = pairs[constant & ~constant.all(0)]
            self.space.unmatched = self.space.unmatched[~torch.isin(self.space.unmatched, matched_pairs)]

    def freeze(self, value: Any, node: Node, reason: str) -> None:
        """Freeze all labels of a value.

        Args:
            value: labels of a tensor or a parameter.
            node: the operator that can't lose them.
            reason: the end of a sentence about them.
        """
        draw = draw_behind(node) if reason == MEETS else None
        reason = reason if draw is None else f"meets random numbers that {draw} draws"
        for tensor in value.labels if isinstance(value, Weight) else (value,):
            labels = torch.unique(squeeze_expanded(tensor))
            labels = labels[labels > 0]
            if len(labels):
                self.couplings.freezes.append(Freeze(labels, operator_name(node), module_path(node), reason))

    def axis_labels(
        self, value: Labels, dim: int, node: Node, produces: bool = False, like: Tensor | None = None
    ) -> Tensor:
        """Return one label per index along an axis, and couple what shares an index, (size of dim,).

        Args:
            value: the labels of a tensor or a parameter.
            dim: the axis.
            node: the operator that uses it.
            produces: whether the axis makes units of its own.
            like: the labels (size of dim,) that it meets, where a parameter has several axes along this one.
        """
        if isinstance(value, Weight):
            return self._parameter_axis(value, dim % len(value.shape), node, produces, like)
        narrow = squeeze_expanded(value, keep=dim)
        rows = narrow.movedim(dim, 0).reshape(narrow.shape[dim % narrow.dim()], -1)
        if rows.shape[1] > 1:
            self.couple(rows, rows[:, :1], node)
        return rows[:, 0].clone()

    def _parameter_axis(self, weight: Weight, dim: int, node: Node, produces: bool, like: Tensor | None) -> Tensor:
        axes = [labelled_axes(labels) for labels in weight.labels]
        candidates = [
            (key, entries_along(labels, dim))
            for axis, (key, labels) in enumerate(zip(weight.keys, weight.labels, strict=True))
            if axes[axis] == {dim} or (weight.is_plain and axis == dim and not axes[axis])
        ]
        if candidates:
            matching = [
                entry for entry in candidates if like is not None and len(candidates) > 1 and determines(entry[1], like)
            ]
            key, entries = (matching or candidates)[0]
            self.touch(key, produces)
            return entries
        for labels, own_axes in zip(weight.labels, axes, strict=True):
            if dim in own_axes:
                self.freeze(labels, node, f"the axes of {weight.name} are mixed before it is used")
        return torch.zeros(weight.shape[dim], dtype=torch.long)

    def without_unmatched(self, labels: Tensor) -> Tensor:
        """Return label 0 in place of a constant that has met no units: an operator that contracts has none to read."""
        unmatched = self.space.unmatched
        if not len(unmatched) or not bool(labels.any()):
            return labels
        distinct = torch.unique(squeeze_expanded(labels))
        if bool(torch.isin(distinct[distinct > 0], unmatched).all()):
            return frozen_labels(labels.shape)
        return labels

    def touch(self, key: ParameterAxis, produces: bool) -> None:
        """Note that an axis of a parameter is used, and whether it makes units of its own."""
        if key[0] not in self.space.constants and key not in self.space.unlabelled:
            self.uses.add(key, produces)

    def activation(self, value: Labels, node: Node, axes: set[int] | None = None) -> Tensor:
        """Return a value as one tensor of labels: of a parameter, those of one of its axes; the others are frozen.

        Args:
            value: the labels of a tensor or a parameter.
            node: the operator that uses it.
            axes: where the units of what it meets lie; the last axis that has any units by default.
        """
        if isinstance(value, Tensor):
            return value
        all_axes = [labelled_axes(labels) for labels in value.labels]
        labelled_positions = [at for at, own_axes in enumerate(all_axes) if own_axes]
        last = labelled_positions[-1] if labelled_positions else None
        position = next((at for at in labelled_positions if all_axes[at] == axes), last)
        for at in labelled_positions:
            if at != position:
                self.freeze(value.labels[at], node, f"{value.name} is used as an activation")
        if position is None:
            return torch.zeros(value.shape, dtype=torch.long)
        self.touch(value.keys[position], produces=True)
        return value.labels[position]
