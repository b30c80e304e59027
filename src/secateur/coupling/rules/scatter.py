"""How labels pass operators that write entries at numbered places: `index_add`, `scatter`, `index_put` and the like.

Along the axes that the places are numbers of there can be no units. Elsewhere what is written goes with what was there.
"""

import torch
from torch import Tensor

from secateur.coupling.label_tracer import Labels, Weight
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.elementwise import elementwise
from secateur.coupling.rules.parameter_axes import grown, layerwise, narrowed
from secateur.graph.operators import arguments

NUMBERED = "is written to by number along these units"


def index_written(call: OpContext) -> Labels:
    """Slices along one axis, at numbered places: `index_add`, `index_copy`, `index_reduce`, `index_fill`."""
    _freeze_places(call, call.args["index"])
    return _written(call, [call.args.get("source")], {call.args["dim"] % len(call.shape)})


def scattered(call: OpContext) -> Labels:
    """Single entries, at places numbered along one axis; the numbers are as many as what is written has units."""
    dim = call.args["dim"] % len(call.shape)
    index, source = call.args["index"], call.args.get("src")
    others = [axis for axis in range(len(call.shape)) if axis != dim]
    beside = [value.shape for value in (call.args["self"], source) if value is not None]
    if any(shape[axis] != index.shape[axis] for shape in beside for axis in others):
        return _freeze_written(call, [call.args["self"], source, index], "is written to in part")
    return _written(call, [source, index if _takes_units(call, index) else None], {dim})


def index_put(call: OpContext) -> Labels:
    """`x[index] = values`: entries that a mask picks, or those at numbered places."""
    indices, values = list(call.args["indices"]), call.args["values"]
    picked = [axis for axis, index in enumerate(indices) if index is not None]
    first, nodes = picked[0], arguments(call.node)["indices"]
    if len(picked) == 1 and nodes[first].meta["val"].dtype in (torch.bool, torch.uint8):
        return _put_by_mask(call, indices[first], values, first)
    if picked != list(range(first, picked[-1] + 1)):
        return _freeze_written(call, [call.args["self"], values, *indices], "is written to along axes that lie apart")
    for axis in picked:
        _freeze_places(call, indices[axis])
    numbered = max(len(indices[axis].shape) for axis in picked)
    rank = first + numbered + len(call.shape) - picked[-1] - 1
    aligned = _with_axes_of(call, values, rank, range(first, first + numbered), len(picked))
    return _written(call, [aligned], set(picked))


def _with_axes_of(call: OpContext, values: Labels, rank: int, numbered: range, picked: int) -> Labels:
    """Values without their axes of numbers; in place of these one axis of length 1 for each that is picked from."""
    shape = (*[1] * (rank - len(values.shape)), *values.shape)
    full = layerwise(values, lambda labels: labels.reshape(shape))
    slim = narrowed(call, full, set(numbered), NUMBERED)
    target = (*shape[: numbered.start], *[1] * picked, *shape[numbered.stop :])
    aligned: Labels = layerwise(slim, lambda labels: labels.reshape(target))
    return aligned


def _put_by_mask(call: OpContext, mask: Labels, values: Labels, first: int) -> Labels:
    """One value for all that the mask picks, or one for each entry of the axes behind the mask's."""
    behind = len(call.shape) - first - len(mask.shape)
    if values.shape.numel() > 1 and len(values.shape) > behind:
        if first or len(values.shape) > behind + 1:
            return _freeze_written(call, [call.args["self"], values, mask], "is written to where a mask picks")
        slim = narrowed(call, values, {0}, "is written where a mask picks")
        values = layerwise(slim, lambda labels: labels.squeeze(0))
    wide = layerwise(mask, lambda labels: labels.reshape(*labels.shape, *[1] * behind))
    return _meet(call, [call.args["self"], wide, values], call.shape)


def _written(call: OpContext, sources: list[Labels | None], dims: set[int]) -> Labels:
    """What was there goes with what is written there, but for the axes of numbered places."""
    values = [call.args["self"], *(source for source in sources if source is not None)]
    slim = [narrowed(call, value, dims, NUMBERED) for value in values]
    shape = torch.Size(1 if axis in dims else length for axis, length in enumerate(call.shape))
    return grown(_meet(call, slim, shape), call.shape)


def _meet(call: OpContext, values: list[Labels], shape: torch.Size) -> Labels:
    return elementwise(OpContext(call.node, call.trace, {str(at): value for at, value in enumerate(values)}, shape))


def _takes_units(call: OpContext, index: Labels) -> bool:
    """Whether an index has units of its own or takes those that it meets, as no parameter or buffer does."""
    return isinstance(index, Tensor) or call.trace.is_constant(index)


def _freeze_places(call: OpContext, index: Labels) -> None:
    """A place counts entries: what it is computed from can't lose units."""
    if isinstance(index, Tensor):
        call.freeze(index, "is a place, not a value")


def _freeze_written(call: OpContext, values: list[Labels | None], reason: str) -> Labels:
    for value in values:
        if isinstance(value, Tensor | Weight):
            call.freeze(value, reason)
    result: Tensor = call.frozen()
    return result
