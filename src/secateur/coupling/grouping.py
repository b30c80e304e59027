"""From ties between labels to groups of units."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.coupling.connected_components import find_components
from secateur.coupling.label_tracer import Freeze, LabelTracer, labelled_axes, squeeze_expanded
from secateur.coupling.network import Frozen, Group, TensorAxis

Array = np.ndarray


@dataclass(frozen=True)
class Units:
    """The units that tracing found.

    Args:
        of_label: for each label the number of its unit in the network, -1 where it is frozen.
        groups: the groups, their members numbered in the same way.
        members: every axis on which a unit lies.
        frozen: what can't be cut.
    """

    of_label: Tensor
    groups: tuple[Group, ...]
    members: tuple[TensorAxis, ...]
    frozen: tuple[Frozen, ...]

    def __call__(self, labels: Tensor) -> Tensor:
        return self.of_label[labels]


def build_groups(trace: LabelTracer) -> Units:
    """Units are the connected components of the ties that no frozen label belongs to."""
    component = _components(trace)
    frozen = _frozen_components(trace.freezes, component)
    touched = sorted(trace.touched, key=lambda key: (key not in trace.produced, trace.touched[key]))
    axes = {(name, axis): labels for name, axis, labels in trace.origin}
    signatures = _signatures([axes[key] for key in touched], component, frozen)
    sizes = {signature: len(found) for signature, found in signatures.items()}
    alive = sorted((s for s in signatures if sizes[s] > 1), key=lambda s: _first_made(s, trace, touched))
    of_component = np.full(trace.size, -1)
    offset, spans = 0, []
    for signature in alive:
        found = signatures[signature]
        of_component[found] = np.arange(offset, offset + len(found))
        spans.append((offset, len(found), [touched[axis] for axis, _ in signature]))
        offset += len(found)
    of_label = torch.from_numpy(of_component[component])
    members = {
        key: TensorAxis(*key, of_label[axes[key]], key in trace.produced)
        for key in touched
        if bool((of_label[axes[key]] >= 0).any())
    }
    groups = _groups(trace, spans, members, of_label)
    alone = {int(found[0]) for s, found in signatures.items() if sizes[s] == 1}
    return Units(of_label, groups, tuple(members.values()), _explain(trace, axes, component, of_label, alone))


def _components(trace: LabelTracer) -> Array:
    ties = list(trace.ties)
    while True:
        component = find_components(ties, trace.size)
        frozen = _frozen_components(trace.freezes, component)
        broken = [tie for node, labels in trace.reshaped for tie in _mend_rectangle(labels, component, frozen)]
        if not broken:
            return component
        for pair in broken:
            held = torch.from_numpy(frozen[component[pair.numpy()]])
            if bool(held.any()):
                trace.freezes.append(Freeze(pair.flatten(), "reshape", "", "must stay rectangular with what is frozen"))
        ties.extend(broken)


def _frozen_components(freezes: Sequence[Freeze], component: Array) -> Array:
    frozen = np.zeros(len(component), bool)
    frozen[component[0]] = True
    for freeze in freezes:
        frozen[component[freeze.labels.numpy()]] = True
    return frozen


def _mend_rectangle(labels: Tensor, component: Array, frozen: Array) -> list[Tensor]:
    """The ties that let a reshaped tensor lose any unit and stay rectangular."""
    narrow = squeeze_expanded(labels)
    classes = torch.from_numpy(component[narrow.numpy()])
    classes[torch.from_numpy(frozen[classes.numpy()])] = -1
    axes = sorted(labelled_axes(classes))
    if len(axes) < 2:
        return []
    candidates = [_ties_along(narrow, classes, axis) for axis in axes]
    left = [len(torch.unique(classes)) - _merged(tie, component) for tie in candidates]
    best = candidates[int(np.argmax(left))]
    return [best] if best.shape[1] else []


def _ties_along(labels: Tensor, classes: Tensor, axis: int) -> Tensor:
    """Ties between all labels that share an index along an axis, where their classes differ. (2, ties)"""
    rows = labels.movedim(axis, 0).reshape(labels.shape[axis], -1)
    kinds = classes.movedim(axis, 0).reshape(labels.shape[axis], -1)
    differs = kinds != kinds[:, :1]
    first = rows[:, :1].expand_as(rows)[differs]
    distinct: Tensor = torch.unique(torch.stack([first, rows[differs]]), dim=1)
    return distinct


def _merged(tie: Tensor, component: Array) -> int:
    """How many classes fewer there are with these ties."""
    kinds, ends = np.unique(component[tie.numpy()], return_inverse=True)
    joined = find_components([torch.from_numpy(ends.reshape(2, -1))], len(kinds))
    return len(kinds) - len(np.unique(joined))


def _signatures(axes: Sequence[Tensor], component: Array, frozen: Array) -> dict[tuple[tuple[int, int], ...], Array]:
    """Components by what they own: ((axis, entries), ...)."""
    if not axes:
        return {}
    owner = np.concatenate([component[labels.numpy()] for labels in axes])
    axis = np.concatenate([np.full(len(labels), index) for index, labels in enumerate(axes)])
    alive = ~frozen[owner]
    codes, first, counts = np.unique(owner[alive] * len(axes) + axis[alive], return_index=True, return_counts=True)
    if not len(codes):
        return {}
    owns = np.stack([codes % len(axes), counts], 1)  # (entries, axis and count), by owner
    kinds, starts = np.unique(codes // len(axes), return_index=True)
    seen = np.minimum.reduceat(first, starts)
    stops = np.append(starts[1:], len(codes))
    found: defaultdict[bytes, list[int]] = defaultdict(list)
    for at in np.argsort(seen).tolist():
        found[owns[starts[at] : stops[at]].tobytes()].append(at)
    return {tuple(map(tuple, owns[starts[same[0]] : stops[same[0]]].tolist())): kinds[same] for same in found.values()}


def _first_made(signature: tuple[tuple[int, int], ...], trace: LabelTracer, touched: list[tuple[str, int]]) -> int:
    keys = [touched[axis] for axis, _ in signature]
    return min(trace.produced.get(key, trace.touched[key] + len(trace.touched) * 2) for key in keys)


def _groups(
    trace: LabelTracer,
    spans: list[tuple[int, int, list[tuple[str, int]]]],
    members: dict[tuple[str, int], TensorAxis],
    of_label: Tensor,
) -> tuple[Group, ...]:
    added = [torch.unique(squeeze_expanded(labels)) for _, labels in trace.additions]
    marks = {"heads": trace.heads, "head width": trace.widths, "residual": added}
    marked = {kind: set(of_label[torch.cat(found)].tolist()) for kind, found in marks.items() if found}
    ranks = Counter(name for name, _, _ in trace.origin)
    groups: list[Group] = []
    names: defaultdict[str, int] = defaultdict(int)
    for offset, size, keys in spans:
        name = _name(min(keys, key=lambda key: trace.produced.get(key, len(trace.origin) * 9 + trace.touched[key])))
        names[name] += 1
        unique = name if names[name] == 1 else f"{name}#{names[name]}"
        dropouts = tuple(dict.fromkeys(path for path, seen in trace.dropouts if _inside(of_label[seen], offset, size)))
        flat = all(ranks[key[0]] <= 2 for key in keys)
        kind = next((kind for kind, found in marked.items() if offset in found), "neurons" if flat else "channels")
        kind = "experts" if trace.stacked else kind
        groups.append(Group(unique, size, offset, kind, tuple(members[key] for key in keys), dropouts))
    return tuple(groups)


def _inside(units: Tensor, offset: int, size: int) -> bool:
    return bool(((units >= offset) & (units < offset + size)).any())


def _name(key: tuple[str, int]) -> str:
    """The module that owns a parameter; a bare parameter of the model itself is its own name."""
    tensor = key[0]
    return tensor.rpartition(".")[0] or tensor


def _explain(
    trace: LabelTracer,
    axes: dict[tuple[str, int], Tensor],
    component: Array,
    of_label: Tensor,
    alone: set[int],
) -> tuple[Frozen, ...]:
    """For every layer whose own units are frozen: the first operator that froze them."""
    first: dict[int, Freeze] = {}
    for freeze in trace.freezes:
        for kind in np.unique(component[freeze.labels.numpy()]).tolist():
            first.setdefault(kind, freeze)
    found: dict[tuple[str, str, str, str], int] = defaultdict(int)
    explained = {name for name, axis in trace.produced} | trace.created
    first_axes = [key for key in axes if key[1] == 0 and (key[0], 1) in axes and key[0] not in explained]
    for key in (*trace.produced, *first_axes):
        held = axes[key][of_label[axes[key]] < 0]
        for kind, entries in zip(*np.unique(component[held.numpy()], return_counts=True), strict=True):
            cause = first.get(int(kind))
            if cause is not None:
                found[_name(key), cause.operator, cause.module, cause.reason] += int(entries)
            elif int(kind) in alone and key in trace.produced:
                found[_name(key), "", "", "is a single unit, and a layer is never emptied"] += int(entries)
    return tuple(Frozen(name, units, *cause) for (name, *cause), units in found.items())
