"""Label rules of pooling and interpolation, and averages over windows of the units that are kept."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.coupling.labels import Weight, broadcast_labels, entries_along, frozen_labels, labelled_axes
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.elementwise import elementwise
from secateur.coupling.rules.op_rule import MaskedOp, OpRule, RuleTable
from secateur.coupling.rules.parameter_axes import expand_labels, narrow_axes
from secateur.coupling.rules.position_axes import pooled_channels
from secateur.coupling.rules.reduction import couple_along, is_parameter

RESIZED = "is resized over these units"


def spatial(op: OpContext) -> Any:
    """Pass batch and channels of pooling, interpolation and the like; couple what differs over space."""
    argument = "self" if "self" in op.args else "input"
    shapes = (op.shape,) if isinstance(op.shape, torch.Size) else tuple(op.shape)
    space = set(range(2, len(op.args[argument].shape)))
    if is_parameter(op, argument) and isinstance(op.shape, torch.Size):
        return expand_labels(narrow_axes(op, op.args[argument], space, RESIZED), op.shape)
    labels = op.activation(argument)
    if labels.shape[:2] != shapes[0][:2]:
        op.freeze(labels, RESIZED)
        return op.frozen()
    coupled_labels = couple_along(op, labels, space, RESIZED)
    if coupled_labels is None:
        return op.frozen()
    for dim in space:
        coupled_labels = coupled_labels.narrow(dim, 0, 1)
    results = tuple(coupled_labels.expand(shape) for shape in shapes)
    return results[0] if isinstance(op.shape, torch.Size) else results


def max_unpool(op: OpContext) -> Any:
    """Couple values with the positions that they are put back to, channel by channel."""
    values = {name: op.activation(name) for name in ("self", "indices")}
    coupled_labels = elementwise(op.with_args(values, values["self"].shape))
    return spatial(op.with_args({"self": coupled_labels}, op.shape))


def average_pool(op: OpContext) -> Any:
    """Average over space, or over windows of neighbouring units as local response norms do."""
    if is_parameter(op, "self") and isinstance(op.shape, torch.Size):
        return spatial(op)
    window_labels = _neighbour_windows(op, op.activation("self"))
    return spatial(op) if window_labels is None else window_labels


def _neighbour_windows(op: OpContext, labels: Tensor) -> Tensor | None:
    """Return the labels of an average of each unit and its neighbours, with as many padded as the windows need.

    The operator reads the units, as a norm does: those next to an absent unit become neighbours. None for any other
    average.
    """
    axes = labelled_axes(labels)
    if len(axes) != 1 or not isinstance(op.shape, torch.Size):
        return None
    (dim,) = axes
    sizes = _window_sizes(op.args["kernel_size"], labels.dim())
    entries, units = entries_along(labels, dim), op.shape[dim]
    first = sizes[dim] // 2
    padding = torch.cat([entries[:first], entries[first + units :]])
    is_plain = all(size == 1 for axis, size in enumerate(sizes) if axis != dim) and _steps_by_one(op)
    is_padding = (padding == 0) | torch.isin(padding, op.tracer.space.unmatched)
    if not is_plain or len(entries) != units + sizes[dim] - 1 or not bool(is_padding.all()):
        return None
    op.read("self", dim, entries)
    return broadcast_labels(entries[first : first + units], dim, op.shape)


def _window_sizes(kernel_size: Any, rank: int) -> list[int]:
    """Return the number of entries of a window along each axis."""
    sizes = [kernel_size] if isinstance(kernel_size, int) else list(kernel_size)
    return [1] * (rank - len(sizes)) + sizes


def _steps_by_one(op: OpContext) -> bool:
    """Return whether windows lie one entry apart and nothing more is padded."""
    stride, padding = op.args["stride"], op.args["padding"]
    steps = [stride] if isinstance(stride, int) else list(stride)
    margins = [padding] if isinstance(padding, int) else list(padding)
    return bool(steps) and all(step == 1 for step in steps) and not any(margins)


def masked_average_pool(pool: MaskedOp) -> MaskedOp:
    """Return an average over windows of neighbouring units that skips absent units.

    Args:
        pool: the average, as of torch.nn.functional.
    """

    def average(present: Tensor, self: Tensor, kernel_size: Any, stride: Any, padding: Any, **options: Any) -> Tensor:
        sizes = _window_sizes(kernel_size, self.dim())
        dim = next((axis for axis, size in enumerate(sizes) if size > 1), None)
        if dim is None:
            return self * present
        first, units = sizes[dim] // 2, self.shape[dim] - sizes[dim] + 1
        rank = ((present > 0).long().cumsum(dim) - 1).clamp_min(0)  # of each entry among those that are present
        moved = torch.zeros_like(self).scatter_add(dim, rank.expand(self.shape), self * present)
        averaged: Tensor = pool(moved, kernel_size, stride, padding, **options)
        start = (rank.narrow(dim, first, units) - first).clamp_min(0)
        shape = [length if axis != dim else units for axis, length in enumerate(averaged.shape)]
        return averaged.gather(dim, start.expand(shape)) * present.narrow(dim, first, units)

    return average


def grid_sample(op: OpContext) -> Tensor:
    """Pass channels; the positions that are sampled do not depend on them."""
    labels = op.activation("input")
    grid = op.args["grid"]
    if isinstance(grid, Tensor | Weight):
        op.freeze(grid, "is a position, not a value")
    if labelled_axes(labels) - {0, 1}:
        op.freeze(labels, "is sampled at computed places")
        return frozen_labels(op.shape)
    for dim in range(2, labels.dim()):
        labels = labels.narrow(dim, 0, 1)
    return labels.expand(op.shape)


def _pool_rules() -> dict[str, OpRule]:
    """Return the rules of poolings over one, two and three axes."""
    pools = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
    rules: dict[str, OpRule] = {}
    for rank, average in pools.items():
        plain = replace(POOLING, keeps_apart=pooled_channels(rank))
        rules[f"max_pool{rank}d adaptive_avg_pool{rank}d"] = plain
        rules[f"avg_pool{rank}d"] = replace(plain, labels=average_pool, masked=masked_average_pool(average))
    return rules


POOLING = OpRule(spatial, gates="passes", channels="pooling")

RULES: RuleTable = {
    **_pool_rules(),
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest2d upsample_bilinear2d": POOLING,
    "upsample_nearest1d upsample_nearest3d upsample_linear1d upsample_trilinear3d upsample_bicubic2d "
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices": OpRule(spatial, channels="pooling"),
    "max_unpool2d max_unpool3d": OpRule(max_unpool),
    "grid_sampler grid_sampler_2d grid_sampler_3d": OpRule(grid_sample),
}
