"""Averages over windows of neighbouring units, as local response norms have them."""

from typing import Any

import torch
from torch import Tensor

from secateur.coupling.label_tracer import broadcast_labels, entries_along, labelled_axes
from secateur.coupling.rules.context import OpContext
from secateur.graph.operators import arguments

AVERAGES = ("avg_pool1d", "avg_pool2d", "avg_pool3d")


def neighbour_windows(call: OpContext, labels: Tensor) -> Tensor | None:
    """An average of each unit and its neighbours, where as many are padded as the windows need: None for any other.

    The operator reads the units, as a norm does: those next to an absent unit become neighbours.
    """
    axes = labelled_axes(labels)
    if len(axes) != 1 or not isinstance(call.shape, torch.Size):
        return None
    (dim,) = axes
    sizes = window_sizes(call.node, labels.dim())
    entries, units = entries_along(labels, dim), call.shape[dim]
    first = sizes[dim] // 2
    filling = torch.cat([entries[:first], entries[first + units :]])
    plain = all(size == 1 for axis, size in enumerate(sizes) if axis != dim) and _steps_by_one(call)
    filled = (filling == 0) | torch.isin(filling, call.trace.virtual)
    if not plain or len(entries) != units + sizes[dim] - 1 or not bool(filled.all()):
        return None
    call.trace.read(call.node, "self", dim, entries)
    return broadcast_labels(entries[first : first + units], dim, call.shape)


def window_sizes(node: torch.fx.Node, rank: int) -> list[int]:
    """How many entries a window has along each axis."""
    kernel: Any = arguments(node)["kernel_size"]
    own = [kernel] if isinstance(kernel, int) else list(kernel)
    return [1] * (rank - len(own)) + own


def _steps_by_one(call: OpContext) -> bool:
    """Whether windows lie one entry apart and nothing more is padded."""
    stride, padding = call.args["stride"], call.args["padding"]
    steps = [stride] if isinstance(stride, int) else list(stride)
    around = [padding] if isinstance(padding, int) else list(padding)
    return bool(steps) and all(step == 1 for step in steps) and not any(around)
