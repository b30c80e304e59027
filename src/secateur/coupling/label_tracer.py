"""Label tracing: run the program on integers that say which unit each entry of each tensor belongs to.

Every axis of every parameter gets fresh labels, one per index. An activation is a tensor of labels; label 0 is frozen:
it can't be cut. Operators tie labels that must go together and freeze those that can't go; nothing is decided before
the end, when the ties' connected components are the units.

Labels of activations repeat along most axes (batch, space), where they are kept as expanded views, so the cost of an
operator is that of its channels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.graph.operators import module_path, operator_name
from secateur.graph.random_draws import draw_behind

if TYPE_CHECKING:
    from secateur.coupling.shape_literals import ShapeLiteral


MEETS = "meets a tensor that can't be cut"


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer on its way to an operator: for each of its axes, the labels of its entries.

    Computed from several parameters it has the axes of all of them. `keys` names, for each layer, the tensor and the
    axis; `whole` tells that the axes are still those of the parameter itself.
    """

    name: str
    keys: tuple[tuple[str, int], ...]
    layers: tuple[Tensor, ...]
    whole: bool = True

    @property
    def shape(self) -> torch.Size:
        return self.layers[0].shape


Labels = Tensor | Weight


@dataclass(frozen=True)
class Freeze:
    """Labels that can't be cut, and why."""

    labels: Tensor
    operator: str
    module: str
    reason: str


@dataclass(frozen=True)
class Read:
    """An operator that contracts over an axis: there, an absent unit must count as nothing."""

    node: Node
    argument: str
    dim: int
    labels: Tensor
    weight: str | None
    bias: str | None
    inner: int
    outputs: Tensor | None


@dataclass(frozen=True)
class Count:
    """A cost: a constant times the number of entries left in each of these label vectors."""

    node: Node
    constant: float
    axes: tuple[Tensor, ...]


@dataclass
class LabelTracer:
    """What label tracing collects while it walks through the program.

    `by_width` says that what an attention product holds together are the same places of all heads, not each head.
    `stacked` gives the only lengths of parameters' axes that get labels: numbers of experts; without any, all do.
    `known` gives labels that are tied from the start (by label, itself where it is alone): entries of one head, which
    only the attention product shows, after rotations and norms have seen them apart.
    """

    known: Tensor | None = None
    by_width: bool = False
    stacked: frozenset[int] = frozenset()
    size: int = 1
    origin: list[tuple[str, int, Tensor]] = field(default_factory=list)
    touched: dict[tuple[str, int], int] = field(default_factory=dict)
    produced: dict[tuple[str, int], int] = field(default_factory=dict)
    ties: list[Tensor] = field(default_factory=list)
    heads: list[Tensor] = field(default_factory=list)
    additions: list[tuple[Node, Tensor]] = field(default_factory=list)
    widths: list[Tensor] = field(default_factory=list)
    stacks: list[tuple[Node, Weight, Tensor]] = field(default_factory=list)
    choices: list[tuple[Node, Tensor, int]] = field(default_factory=list)
    within_heads: list[Tensor] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    reshaped: list[tuple[Node, Tensor]] = field(default_factory=list)
    dropouts: list[tuple[str, Tensor]] = field(default_factory=list)
    sizes: list["ShapeLiteral"] = field(default_factory=list)
    draws: list[tuple[Node, tuple[Tensor, ...]]] = field(default_factory=list)
    created: set[str] = field(default_factory=set)
    unlabelled: set[tuple[str, int]] = field(default_factory=set)
    virtual: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    def weight(self, name: str, shape: Iterable[int]) -> Weight | Tensor:
        """Fresh labels for every axis of a parameter; a scalar has none."""
        shape = tuple(shape)
        if not shape:
            return torch.zeros((), dtype=torch.long)
        layers = []
        for axis, length in enumerate(shape):
            if self.stacked and length not in self.stacked:
                self.unlabelled.add((name, axis))
                layers.append(torch.zeros((), dtype=torch.long).expand(shape))
                continue
            labels = torch.arange(self.size, self.size + length)
            self.size += length
            self.origin.append((name, axis, labels))
            if self.known is not None:
                self.ties.append(torch.stack([labels, self.known[labels]]))
                labels = self.known[labels]
            layers.append(broadcast_labels(labels, axis, shape))
        return Weight(name, tuple((name, axis) for axis in range(len(shape))), tuple(layers))

    def constant(self, node: Node, shape: Sequence[int], axes: Iterable[int]) -> Labels:
        """What an operator makes that is the same all along some axes: it has as many entries as what it meets."""
        name = f"%{node.name}"
        self.created.add(name)
        weight = self.weight(name, shape)
        kept = tuple(axes)
        if isinstance(weight, Tensor) or not kept:
            return torch.zeros((), dtype=torch.long).expand(shape)
        made = [torch.unique(squeeze_expanded(weight.layers[axis])) for axis in kept]
        self.virtual = torch.cat([self.virtual, *made])
        keys = tuple(weight.keys[axis] for axis in kept)
        return Weight(name, keys, tuple(weight.layers[axis] for axis in kept), whole=False)

    def constant_entries(self, name: str, length: int) -> Tensor:
        """Labels of entries along one axis that hold a constant: as many as the units that they meet. (length,)"""
        self.created.add(name)
        weight = self.weight(name, (length,))
        labels = weight.layers[0].contiguous() if isinstance(weight, Weight) else torch.zeros(length, dtype=torch.long)
        self.virtual = torch.cat([self.virtual, labels[labels > 0]])
        return labels

    def is_constant(self, value: Labels) -> bool:
        """Whether a value was made by operators that `constant` stands for, and from no parameter or buffer."""
        return isinstance(value, Weight) and bool(value.keys) and all(name in self.created for name, _ in value.keys)

    def tie(self, a: Tensor, b: Tensor, node: Node, reason: str = MEETS) -> None:
        """Entries of a and b (broadcast together) go together; those that meet label 0 are frozen."""
        pairs = unique_pairs(a, b)
        frozen = (pairs == 0).any(0)
        self.freeze(pairs[:, frozen], node, reason)
        pairs = pairs[:, ~frozen & (pairs[0] != pairs[1])]
        if pairs.shape[1]:
            self.ties.append(pairs)
        if len(self.virtual) and pairs.shape[1]:
            made = torch.isin(pairs, self.virtual)
            met = pairs[made & ~made.all(0)]
            self.virtual = self.virtual[~torch.isin(self.virtual, met)]

    def freeze(self, value: Any, node: Node, reason: str) -> None:
        """All labels of a value can't be cut."""
        drawn = draw_behind(node) if reason == MEETS else None
        reason = reason if drawn is None else f"meets random numbers that {drawn} draws"
        tensors = value.layers if isinstance(value, Weight) else (value,)
        for tensor in tensors:
            labels = torch.unique(squeeze_expanded(tensor))
            labels = labels[labels > 0]
            if len(labels):
                self.freezes.append(Freeze(labels, operator_name(node), module_path(node), reason))

    def read(
        self,
        node: Node,
        argument: str,
        dim: int,
        labels: Tensor,
        weight: str | None = None,
        bias: str | None = None,
        inner: int = 1,
        outputs: Tensor | None = None,
    ) -> None:
        self.reads.append(Read(node, argument, dim, labels, weight, bias, inner, outputs))

    def count(self, node: Node, constant: float, *axes: Tensor) -> None:
        self.counts.append(Count(node, constant, axes))

    def along(self, value: Labels, dim: int, node: Node, produces: bool = False, like: Tensor | None = None) -> Tensor:
        """One label per index along an axis; what shares an index goes together. (size of dim,)

        Args:
            value: the labels of a tensor or a parameter.
            dim: the axis.
            node: the operator that uses it.
            produces: whether the axis makes units of its own.
            like: the labels (size of dim,) that it meets, where a parameter has several axes along this one.
        """
        if isinstance(value, Weight):
            return self._axis(value, dim % len(value.shape), node, produces, like)
        narrow = squeeze_expanded(value, keep=dim)
        rows = narrow.movedim(dim, 0).reshape(narrow.shape[dim % narrow.dim()], -1)
        if rows.shape[1] > 1:
            self.tie(rows, rows[:, :1], node)
        return rows[:, 0].clone()

    def _axis(self, weight: Weight, dim: int, node: Node, produces: bool, like: Tensor | None) -> Tensor:
        axes = [labelled_axes(layer) for layer in weight.layers]
        lying = [
            (key, entries_along(layer, dim))
            for axis, (key, layer) in enumerate(zip(weight.keys, weight.layers, strict=True))
            if axes[axis] == {dim} or (weight.whole and axis == dim and not axes[axis])
        ]
        if lying:
            fitting = [entry for entry in lying if like is not None and len(lying) > 1 and determines(entry[1], like)]
            key, labels = (fitting or lying)[0]
            self.touch(key, produces)
            return labels
        for layer, varied in zip(weight.layers, axes, strict=True):
            if dim in varied:
                self.freeze(layer, node, f"the axes of {weight.name} are mixed before it is used")
        return torch.zeros(weight.shape[dim], dtype=torch.long)

    def stripped(self, labels: Tensor) -> Tensor:
        """Labels of a constant that met no units so far are none to an operator that contracts or reduces."""
        if not len(self.virtual) or not bool(labels.any()):
            return labels
        own = torch.unique(squeeze_expanded(labels))
        if bool(torch.isin(own[own > 0], self.virtual).all()):
            return torch.zeros((), dtype=torch.long).expand(labels.shape)
        return labels

    def touch(self, key: tuple[str, int], produces: bool) -> None:
        """Note that an axis of a parameter is used, and whether it makes units of its own."""
        if key[0] in self.created or key in self.unlabelled:
            return
        order = len(self.touched) + len(self.produced)
        self.touched.setdefault(key, order)
        if produces:
            self.produced.setdefault(key, order)

    def activation(self, value: Labels, node: Node, along: set[int] | None = None) -> Tensor:
        """A value as one tensor of labels: of a parameter, those of one of its axes; the others are frozen.

        Args:
            value: the labels of a tensor or a parameter.
            node: the operator that uses it.
            along: where the units of what it meets lie; the last axis that has any units by default.
        """
        if isinstance(value, Tensor):
            return value
        axes = [labelled_axes(layer) for layer in value.layers]
        wide = [at for at, varied in enumerate(axes) if varied]
        chosen = next((at for at in wide if axes[at] == along), wide[-1] if wide else None)
        for at in wide:
            if at != chosen:
                self.freeze(value.layers[at], node, f"{value.name} is used as an activation")
        if chosen is None:
            return torch.zeros(value.shape, dtype=torch.long)
        self.touch(value.keys[chosen], produces=True)
        return value.layers[chosen]


def broadcast_labels(labels: Tensor, dim: int, shape: Iterable[int]) -> Tensor:
    """Labels along one axis, repeated (without memory) over the others."""
    shape = tuple(shape)
    view = [1] * len(shape)
    view[dim] = -1
    return labels.view(view).expand(shape)


def squeeze_expanded(labels: Tensor, keep: int | None = None) -> Tensor:
    """Without the repetitions of an expanded view: those axes have length 1."""
    kept = None if keep is None else keep % max(labels.dim(), 1)
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1 and labels.stride(dim) == 0 and dim != kept:
            labels = labels.narrow(dim, 0, 1)
    return labels


def labelled_axes(labels: Tensor) -> set[int]:
    """The axes along which labels differ."""
    narrow = squeeze_expanded(labels)
    wide = [dim for dim in range(narrow.dim()) if narrow.shape[dim] > 1 and narrow.numel()]
    axes = {dim for dim in wide if _differs_at_origin(narrow, dim)}
    for dim in wide:  # what is alike everywhere along an axis need not be read again for the next one
        if dim not in axes and bool((narrow != narrow.narrow(dim, 0, 1)).any()):
            axes.add(dim)
        elif dim not in axes:
            narrow = narrow.narrow(dim, 0, 1)
    return axes


def _differs_at_origin(labels: Tensor, dim: int) -> bool:
    """Whether labels differ along an axis where all others are at 0: the few that tell mostly."""
    line = labels[tuple(slice(None) if other == dim else 0 for other in range(labels.dim()))]
    return bool((line != line[0]).any())


def entries_along(labels: Tensor, dim: int) -> Tensor:
    """The labels along an axis, which are the same everywhere else. (size of dim,)"""
    for other in range(labels.dim()):
        if other != dim % labels.dim():
            labels = labels.narrow(other, 0, 1)
    return labels.reshape(-1).clone()


def determines(a: Tensor, b: Tensor) -> bool:
    """Whether the labels of one tensor are decided by those of the other, which they meet."""
    pairs = unique_pairs(a, b).shape[1]
    return pairs == max(len(torch.unique(squeeze_expanded(a))), len(torch.unique(squeeze_expanded(b))))


def unique_pairs(a: Tensor, b: Tensor) -> Tensor:
    """The distinct pairs of labels that meet when two tensors are broadcast together. (2, pairs)"""
    a, b = torch.broadcast_tensors(a, b)
    for dim in range(a.dim()):
        if a.shape[dim] > 1 and a.stride(dim) == 0 and b.stride(dim) == 0:
            a, b = a.narrow(dim, 0, 1), b.narrow(dim, 0, 1)
    base = int(max(a.max(), b.max())) + 1 if a.numel() else 1
    codes = torch.unique(a.reshape(-1) * base + b.reshape(-1))
    return torch.stack([codes // base, codes % base])
