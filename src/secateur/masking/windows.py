"""Windows over neighbouring units, of the kept units only: absent units leave no gap."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.rules.windows import window_sizes
from secateur.graph.program import OpFn


def average_over_kept(
    node: Node, dim: int, factor: Tensor, x: Tensor, target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """Average over windows of the kept units, moved together; absent units give 0.

    Args:
        node: the operator.
        dim: the axis of units, with the padding around them.
        factor: 1 where an entry stays, as many axes as x has.
        x: what is averaged.
        target: the operator's call, whose first argument is x.
        args: its arguments.
        kwargs: its keyword arguments.
    """
    size = window_sizes(node, x.dim())[dim]
    first, units = size // 2, x.shape[dim] - size + 1
    position = ((factor > 0).long().cumsum(dim) - 1).clamp_min(0)  # of each entry among the kept ones
    compacted = torch.zeros_like(x).scatter_add(dim, position.expand(x.shape), x * factor)
    averaged: Tensor = target(compacted, *args[1:], **kwargs)
    start = (position.narrow(dim, first, units) - first).clamp_min(0)
    shape = [length if axis != dim else units for axis, length in enumerate(averaged.shape)]
    return averaged.gather(dim, start.expand(shape)) * factor.narrow(dim, first, units)
