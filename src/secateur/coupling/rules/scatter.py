"""Label rules of operators that write entries at positions: `index_add`, `scatter`, `masked_scatter` and the like.

Along the axes that numbers count or a mask picks from there can be no units. Elsewhere what is written is coupled with
what was there.
"""

import torch
from torch import Tensor

from secateur.coupling.labels import Labels, Weight
from secateur.coupling.rules.context import OpContext, freeze_arguments
from secateur.coupling.rules.elementwise import elementwise
from secateur.coupling.rules.op_rule import OpRule, RuleTable
from secateur.coupling.rules.parameter_axes import expand_labels, map_labels, narrow_axes
from secateur.graph.operators import arguments

NUMBERED = "is written to by number along these units"
BY_MASK = "is written where a mask picks"


def write_slices(op: OpContext) -> Labels:
    """Write slices along one axis at numbered positions: `index_add`, `index_copy`, `index_reduce`, `index_fill`."""
    _freeze_index(op, op.args["index"])
    return _write(op, [op.args.get("source")], {op.args["dim"] % len(op.shape)})


def scatter(op: OpContext) -> Labels:
    """Write single entries at positions numbered along one axis; the index has as many as what is written has units."""
    dim = op.args["dim"] % len(op.shape)
    index, source = op.args["index"], op.args.get("src")
    other_axes = [axis for axis in range(len(op.shape)) if axis != dim]
    shapes = [value.shape for value in (op.args["self"], source) if value is not None]
    if any(shape[axis] != index.shape[axis] for shape in shapes for axis in other_axes):
        return _freeze_all(op, [op.args["self"], source, index], "is written to in part")
    return _write(op, [source, index if _can_have_units(op, index) else None], {dim})


def index_put(op: OpContext) -> Labels:
    """Write `x[index] = values`: entries that a mask picks, or those at numbered positions."""
    indices, values = list(op.args["indices"]), op.args["values"]
    picked_axes = [axis for axis, index in enumerate(indices) if index is not None]
    first_axis, nodes = picked_axes[0], arguments(op.node)["indices"]
    if len(picked_axes) == 1 and nodes[first_axis].meta["val"].dtype in (torch.bool, torch.uint8):
        return _write_by_mask(op, indices[first_axis], values, first_axis)
    if picked_axes != list(range(first_axis, picked_axes[-1] + 1)):
        return _freeze_all(op, [op.args["self"], values, *indices], "is written to along axes that lie apart")
    for axis in picked_axes:
        _freeze_index(op, indices[axis])
    index_rank = max(len(indices[axis].shape) for axis in picked_axes)
    rank = first_axis + index_rank + len(op.shape) - picked_axes[-1] - 1
    aligned_values = _align_axes(op, values, rank, range(first_axis, first_axis + index_rank), len(picked_axes))
    return _write(op, [aligned_values], set(picked_axes))


def masked_scatter(op: OpContext) -> Labels:
    """Write the next entries of a source wherever a mask picks: rows of units, where the mask picks whole rows."""
    values = [op.args["self"], op.args["mask"], op.args["source"]]
    source, mask = values[-1], arguments(op.node)["mask"].meta["val"]
    picks_rows = mask.dim() > 0 and (mask.shape[-1] == 1 or mask.stride(-1) == 0)
    if not picks_rows or source.shape[-1:] != op.shape[-1:]:
        return _freeze_all(op, values, BY_MASK)
    rows = narrow_axes(op, source, set(range(len(source.shape) - 1)), BY_MASK)
    row = map_labels(rows, lambda labels: labels.reshape(-1))
    return _couple(op, [*values[:-1], row], op.shape)


def _align_axes(op: OpContext, values: Labels, rank: int, numbered_axes: range, picked_count: int) -> Labels:
    """Replace the axes of values that numbers count by one axis of length 1 for each axis that is picked from."""
    shape = (*[1] * (rank - len(values.shape)), *values.shape)
    full = map_labels(values, lambda labels: labels.reshape(shape))
    narrow_labels = narrow_axes(op, full, set(numbered_axes), NUMBERED)
    target = (*shape[: numbered_axes.start], *[1] * picked_count, *shape[numbered_axes.stop :])
    aligned_labels: Labels = map_labels(narrow_labels, lambda labels: labels.reshape(target))
    return aligned_labels


def _write_by_mask(op: OpContext, mask: Labels, values: Labels, first_axis: int) -> Labels:
    """Write one value for all that the mask picks, or one for each entry of the axes behind the mask's."""
    axes_behind = len(op.shape) - first_axis - len(mask.shape)
    if values.shape.numel() > 1 and len(values.shape) > axes_behind:
        if first_axis or len(values.shape) > axes_behind + 1:
            return _freeze_all(op, [op.args["self"], values, mask], "is written to where a mask picks")
        narrow_labels = narrow_axes(op, values, {0}, BY_MASK)
        values = map_labels(narrow_labels, lambda labels: labels.squeeze(0))
    expanded_mask = map_labels(mask, lambda labels: labels.reshape(*labels.shape, *[1] * axes_behind))
    return _couple(op, [op.args["self"], expanded_mask, values], op.shape)


def _write(op: OpContext, sources: list[Labels | None], dims: set[int]) -> Labels:
    """Couple what is written with what was there, but for the axes of numbered positions."""
    values = [op.args["self"], *(source for source in sources if source is not None)]
    narrow_values = [narrow_axes(op, value, dims, NUMBERED) for value in values]
    shape = torch.Size(1 if axis in dims else length for axis, length in enumerate(op.shape))
    return expand_labels(_couple(op, narrow_values, shape), op.shape)


def _couple(op: OpContext, values: list[Labels], shape: torch.Size) -> Labels:
    return elementwise(op.with_args({str(at): value for at, value in enumerate(values)}, shape))


def _can_have_units(op: OpContext, index: Labels) -> bool:
    """Return whether an index has units or takes those that it meets, as no parameter or buffer does."""
    return isinstance(index, Tensor) or op.tracer.is_constant(index)


def _freeze_index(op: OpContext, index: Labels) -> None:
    """Freeze what an index is computed from: a position counts entries."""
    if isinstance(index, Tensor):
        op.freeze(index, "is a position, not a value")


def _freeze_all(op: OpContext, values: list[Labels | None], reason: str) -> Labels:
    frozen: Tensor = freeze_arguments(op, reason, [v for v in values if isinstance(v, Tensor | Weight)])
    return frozen


RULES: RuleTable = {
    "index_add index_copy index_reduce index_fill": OpRule(write_slices),
    "scatter scatter_add scatter_reduce": OpRule(scatter),
    "index_put": OpRule(index_put),
    "masked_scatter": OpRule(masked_scatter),
}
