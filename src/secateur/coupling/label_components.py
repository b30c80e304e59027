"""Components of coupled labels, with the couplings that keep reshaped tensors rectangular."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from secateur.coupling.connected_components import find_components
from secateur.coupling.labels import labelled_axes, squeeze_expanded
from secateur.coupling.trace_records import Couplings, Freeze

Array = np.ndarray


def label_components(couplings: Couplings, size: int) -> Array:
    """Return the component of every label, where every reshaped tensor stays rectangular, (size,)."""
    pairs = list(couplings.pairs)
    while True:
        component = find_components(pairs, size)
        frozen = frozen_components(couplings.freezes, component)
        new_pairs = [p for _, labels in couplings.rectangles for p in _rectangle_couplings(labels, component, frozen)]
        if not new_pairs:
            return component
        for pair in new_pairs:
            if bool(frozen[component[pair.numpy()]].any()):
                reason = "must stay rectangular with what is frozen"
                couplings.freezes.append(Freeze(pair.flatten(), "reshape", "", reason))
        pairs.extend(new_pairs)


def frozen_components(freezes: Sequence[Freeze], component: Array) -> Array:
    """Return which components are frozen (components,).

    Args:
        freezes: the frozen labels.
        component: the component of every label.
    """
    frozen = np.zeros(len(component), bool)
    frozen[component[0]] = True
    for freeze in freezes:
        frozen[component[freeze.labels.numpy()]] = True
    return frozen


def _rectangle_couplings(labels: Tensor, component: Array, frozen: Array) -> list[Tensor]:
    """Return the couplings that let a reshaped tensor lose any unit and stay rectangular."""
    narrow = squeeze_expanded(labels)
    classes = torch.from_numpy(component[narrow.numpy()])
    classes[torch.from_numpy(frozen[classes.numpy()])] = -1
    axes = sorted(labelled_axes(classes))
    if len(axes) < 2:
        return []
    candidates = [_couplings_along(narrow, classes, axis) for axis in axes]
    remaining = [len(torch.unique(classes)) - _merge_classes(pairs, component) for pairs in candidates]
    best = candidates[int(np.argmax(remaining))]
    return [best] if best.shape[1] else []


def _couplings_along(labels: Tensor, classes: Tensor, axis: int) -> Tensor:
    """Return pairs of labels that share an index along an axis and differ in their classes, (2, pairs)."""
    rows = labels.movedim(axis, 0).reshape(labels.shape[axis], -1)
    row_classes = classes.movedim(axis, 0).reshape(labels.shape[axis], -1)
    differs = row_classes != row_classes[:, :1]
    first = rows[:, :1].expand_as(rows)[differs]
    pairs: Tensor = torch.unique(torch.stack([first, rows[differs]]), dim=1)
    return pairs


def _merge_classes(pairs: Tensor, component: Array) -> int:
    """Return how many classes fewer there are with these couplings."""
    classes, ends = np.unique(component[pairs.numpy()], return_inverse=True)
    components = find_components([torch.from_numpy(ends.reshape(2, -1))], len(classes))
    return len(classes) - len(np.unique(components))
