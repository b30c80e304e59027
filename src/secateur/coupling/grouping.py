"""Groups of units, built from the couplings between labels."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.coupling.group import Group
from secateur.coupling.label_components import frozen_components, label_components
from secateur.coupling.label_tracer import LabelTracer
from secateur.coupling.labels import ParameterAxis, squeeze_expanded
from secateur.coupling.members import Frozen, TensorAxis
from secateur.coupling.trace_records import Freeze

Array = np.ndarray
Signature = tuple[tuple[int, int], ...]


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
        """Return the units of labels, -1 where they are frozen; an expanded view stays one."""
        return self.of_label[squeeze_expanded(labels)].expand(labels.shape)


def build_groups(tracer: LabelTracer) -> Units:
    """Build groups of units: the connected components of the couplings that no frozen label belongs to."""
    uses = tracer.uses
    component = label_components(tracer.couplings, tracer.space.size)
    frozen = frozen_components(tracer.couplings.freezes, component)
    keys = sorted(uses.first_use, key=lambda key: (key not in uses.first_production, uses.first_use[key]))
    axes = {(name, axis): labels for name, axis, labels in tracer.space.origins}
    signatures = _signatures([axes[key] for key in keys], component, frozen)
    shared_signatures = [signature for signature, components in signatures.items() if len(components) > 1]
    of_component = np.full(tracer.space.size, -1)
    offset, spans = 0, []
    for signature in sorted(shared_signatures, key=lambda s: _first_production(s, tracer, keys)):
        components = signatures[signature]
        of_component[components] = np.arange(offset, offset + len(components))
        spans.append((offset, len(components), [keys[axis] for axis, _ in signature]))
        offset += len(components)
    of_label = torch.from_numpy(of_component[component])
    members = {
        key: TensorAxis(*key, of_label[axes[key]], key in uses.first_production)
        for key in keys
        if bool((of_label[axes[key]] >= 0).any())
    }
    groups = _groups(tracer, spans, members, of_label)
    lone_components = {int(components[0]) for components in signatures.values() if len(components) == 1}
    return Units(
        of_label, groups, tuple(members.values()), _explain(tracer, axes, component, of_label, lone_components)
    )


def _signatures(axes: Sequence[Tensor], component: Array, frozen: Array) -> dict[Signature, Array]:
    """Return the components by what they own: ((axis, entries), ...)."""
    if not axes:
        return {}
    owner = np.concatenate([component[labels.numpy()] for labels in axes])
    axis = np.concatenate([np.full(len(labels), index) for index, labels in enumerate(axes)])
    is_free = ~frozen[owner]
    codes, first, counts = np.unique(owner[is_free] * len(axes) + axis[is_free], return_index=True, return_counts=True)
    if not len(codes):
        return {}
    owns = np.stack([codes % len(axes), counts], 1)  # (entries, axis and count), by owner
    owners, starts = np.unique(codes // len(axes), return_index=True)
    first_entry = np.minimum.reduceat(first, starts)
    stops = np.append(starts[1:], len(codes))
    same: defaultdict[bytes, list[int]] = defaultdict(list)
    for at in np.argsort(first_entry).tolist():
        same[owns[starts[at] : stops[at]].tobytes()].append(at)
    return {tuple(map(tuple, owns[starts[at[0]] : stops[at[0]]].tolist())): owners[at] for at in same.values()}


def _first_production(signature: Signature, tracer: LabelTracer, keys: Sequence[ParameterAxis]) -> int:
    uses = tracer.uses
    late = len(uses.first_use) * 2
    own_keys = (keys[axis] for axis, _ in signature)
    return min(uses.first_production.get(key, uses.first_use[key] + late) for key in own_keys)


def _groups(
    tracer: LabelTracer,
    spans: Sequence[tuple[int, int, list[ParameterAxis]]],
    members: Mapping[ParameterAxis, TensorAxis],
    of_label: Tensor,
) -> tuple[Group, ...]:
    """Return the groups: their names, kinds, members and dropouts.

    Args:
        tracer: the walk.
        spans: of each group the number of its first unit, its size, and the axes on which it lies.
        members: the axes on which units lie.
        of_label: the unit of each label.
    """
    kinds = _units_by_kind(tracer, of_label)
    ranks = Counter(name for name, _, _ in tracer.space.origins)
    dropouts = [(path, of_label[labels]) for path, labels in tracer.notes.dropouts]
    groups: list[Group] = []
    names: defaultdict[str, int] = defaultdict(int)
    for offset, size, keys in spans:
        name = _module_name(_first_producer(tracer, keys))
        names[name] += 1
        unique = name if names[name] == 1 else f"{name}#{names[name]}"
        paths = dict.fromkeys(path for path, units in dropouts if _overlaps(units, offset, size))
        is_flat = all(ranks[key[0]] <= 2 for key in keys)
        kind = next((kind for kind, units in kinds.items() if offset in units), "neurons" if is_flat else "channels")
        kind = "experts" if tracer.scope.stack_lengths else kind
        groups.append(Group(unique, size, offset, kind, tuple(members[key] for key in keys), tuple(paths)))
    return tuple(groups)


def _units_by_kind(tracer: LabelTracer, of_label: Tensor) -> dict[str, set[int]]:
    """Return the units of heads, of the width of heads, and of sums of different layers."""
    labels = {
        "heads": [heads for _, _, heads in tracer.attention.heads],
        "head width": tracer.attention.widths,
        "residual": [torch.unique(squeeze_expanded(added)) for _, added in tracer.notes.additions],
    }
    return {kind: set(of_label[torch.cat(tensors)].tolist()) for kind, tensors in labels.items() if tensors}


def _first_producer(tracer: LabelTracer, keys: Sequence[ParameterAxis]) -> ParameterAxis:
    uses, late = tracer.uses, len(tracer.space.origins) * 9
    return min(keys, key=lambda key: uses.first_production.get(key, late + uses.first_use[key]))


def _overlaps(units: Tensor, offset: int, size: int) -> bool:
    return bool(((units >= offset) & (units < offset + size)).any())


def _module_name(key: ParameterAxis) -> str:
    """Return the path of the module that owns a parameter; a parameter of the model itself is named by itself."""
    tensor = key[0]
    return tensor.rpartition(".")[0] or tensor


def _explain(
    tracer: LabelTracer,
    axes: Mapping[ParameterAxis, Tensor],
    component: Array,
    of_label: Tensor,
    lone_components: Collection[int],
) -> tuple[Frozen, ...]:
    """Return for every layer whose own units are frozen the first operator that froze them."""
    causes: dict[int, Freeze] = {}
    for freeze in tracer.couplings.freezes:
        for number in np.unique(component[freeze.labels.numpy()]).tolist():
            causes.setdefault(number, freeze)
    entries: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)
    producers = tracer.uses.first_production
    explained_names = {name for name, _ in producers} | tracer.space.constants
    first_axes = [key for key in axes if key[1] == 0 and (key[0], 1) in axes and key[0] not in explained_names]
    for key in (*producers, *first_axes):
        frozen_labels = axes[key][of_label[axes[key]] < 0]
        for number, count in zip(*np.unique(component[frozen_labels.numpy()], return_counts=True), strict=True):
            cause = causes.get(int(number))
            if cause is not None:
                entries[_module_name(key), cause.operator, cause.module, cause.reason] += int(count)
            elif int(number) in lone_components and key in producers:
                entries[_module_name(key), "", "", "is a single unit, and a layer is never emptied"] += int(count)
    return tuple(Frozen(name, units, *cause) for (name, *cause), units in entries.items())
