"""The shape of each layer's blocks: given for all, by layer, or chosen by error at equal size."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from secateur.errors import BudgetError
from secateur.options import is_block_shape
from secateur.options.globs import match_globs
from secateur.sparsity.unification.blocks import Blocks, labels_of, project

DEFAULT_SHAPE = (1, 8)
MOST_PADDING = 1.1  # how many times more blocks than without padding a candidate may have
Shape = int | Sequence[int]


def block_shapes(
    weights: Mapping[str, Tensor], shape: Shape | Mapping[str, Shape], pruned: float, unified: float
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each layer's blocks.

    Args:
        weights: by the names of their layers.
        shape: one for all layers; a number of weights, for the shape of so many that changes each layer's weight least;
            or either by globs of layers' names, where the others have (1, 8).
        pruned: the fraction of blocks to prune.
        unified: the fraction of blocks to unify.

    Raises:
        BudgetError: a shape is out of range, or has other axes than a weight.
        NameMatchError: a glob matches no layer.

    Examples:
        >>> import torch
        >>> rows = torch.arange(1.0, 9)[:, None].expand(8, 8)
        >>> block_shapes({"a": rows, "b": rows.T}, 4, 0.0, 1.0)
        {'a': (1, 4), 'b': (4, 1)}
    """
    shapes: dict[str, Shape] = dict.fromkeys(weights, DEFAULT_SHAPE)
    if isinstance(shape, Mapping):
        for glob, glob_shape in shape.items():
            shapes |= dict.fromkeys(match_globs(glob, weights, "layer to structure"), glob_shape)
    else:
        shapes = dict.fromkeys(weights, shape)
    return {name: _shape_for(name, weight, shapes[name], pruned, unified) for name, weight in weights.items()}


def _shape_for(name: str, weight: Tensor, shape: Shape, pruned: float, unified: float) -> tuple[int, ...]:
    if isinstance(shape, int):
        return _nearest_shape(weight, shape, pruned, unified)
    if not is_block_shape(shape) or math.prod(shape) < 2:
        raise BudgetError(
            f"shape={shape!r} of {name}: blocks of two weights or more, such as 8, (1, 8) or (4, 4, 1, 1)"
        )
    sides = tuple(int(side) for side in shape)
    if len(sides) > weight.dim() >= 2 and math.prod(sides[weight.dim() :]) == 1:
        sides = sides[: weight.dim()]  # a linear layer has one place
    if len(sides) not in (2, weight.dim()):
        raise BudgetError(
            f"shape={sides} has {len(sides)} sides, but the weight of {name} has {weight.dim()} axes; give two sides, "
            f"(filters, inputs), or {weight.dim()}"
        )
    return sides


def candidate_shapes(weight: Tensor, size: int) -> list[tuple[int, ...]]:
    """Return shapes of so many weights: of the matrix, of one position of the kernel, and of a whole kernel."""
    pairs = [(high, size // high) for high in range(1, size + 1) if size % high == 0]
    kernel_sides = (1,) * (weight.dim() - 2)
    candidates: list[tuple[int, ...]] = list(pairs)
    if math.prod(weight.shape[2:]) > 1:
        candidates += [(*pair, *kernel_sides) for pair in pairs]
        candidates += [(1, 1, *weight.shape[2:])] if math.prod(weight.shape[2:]) == size else []
    most_blocks = MOST_PADDING * math.ceil(weight.numel() / size)
    fitting = [shape for shape in candidates if Blocks(tuple(weight.shape), shape).count <= most_blocks]
    return fitting or [(1, size)]


def distortion(weight: Tensor, shape: tuple[int, ...], pruned: float, unified: float) -> float:
    """Return the squared distance of a weight from the nearest one of that structure, as a part of its own square."""
    blocks, values = Blocks(tuple(weight.shape), shape), weight.detach().double()
    nearest = project(blocks, values, labels_of(blocks, values, pruned, unified))
    return float((values - nearest).square().sum() / values.square().sum().clamp_min(1e-300))


def _nearest_shape(weight: Tensor, size: int, pruned: float, unified: float) -> tuple[int, ...]:
    if size < 2:
        raise BudgetError(f"shape={size}: blocks of two weights or more")
    return min(candidate_shapes(weight, size), key=lambda shape: distortion(weight, shape, pruned, unified))
