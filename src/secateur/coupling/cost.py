"""Parameters, MACs and bytes of any plan, without building it."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from secateur.coupling.consumers import Consumer
    from secateur.coupling.members import TensorAxis


WHOLE = -1
"""The axis of a member that owns a tensor as a whole: a block's, beside those of the units within it."""


@dataclass(frozen=True)
class Cost:
    """The cost of a network: parameters, multiply-accumulates for one example, bytes of parameters and buffers."""

    params: int
    macs: int
    bytes: int


@dataclass(frozen=True)
class TensorCost:
    """One parameter or buffer of the dense network."""

    name: str
    shape: tuple[int, ...]
    itemsize: int
    is_parameter: bool


@dataclass(frozen=True)
class Work:
    """The MACs of one operator for one example: a constant times the number of remaining entries of each axis."""

    module: str
    constant: float
    axes: tuple[Tensor, ...]


def cost_of(
    mask: Tensor,
    tensors: Sequence[TensorCost],
    members: Sequence["TensorAxis"],
    work: Sequence[Work],
    new_biases: Sequence["Consumer"],
) -> Cost:
    """Return the cost of the units that a mask keeps.

    Args:
        mask: which units are kept (units + 1,).
        tensors: the parameters and buffers of the model.
        members: the axes on which units lie.
        work: the MACs of each operator.
        new_biases: consumers that get a bias of their own.
    """
    lengths: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for member in members:
        lengths[member.tensor][member.axis] = int(mask[member.units].sum())
    shapes = {
        tensor.name: [
            *(lengths[tensor.name].get(axis, length) for axis, length in enumerate(tensor.shape)),
            lengths[tensor.name].get(WHOLE, 1),
        ]
        for tensor in tensors
    }
    numels = {name: math.prod(shape) for name, shape in shapes.items()}
    itemsizes = {tensor.name: tensor.itemsize for tensor in tensors}
    params = sum(numels[tensor.name] for tensor in tensors if tensor.is_parameter)
    total = sum(numels[tensor.name] * tensor.itemsize for tensor in tensors)
    for consumer in new_biases:
        if consumer.fold is None or bool(mask[consumer.units].all()) or not lengths[consumer.fold.weight].get(WHOLE, 1):
            continue
        length = int(mask[consumer.fold.outputs].sum())
        params += length
        total += length * itemsizes[consumer.fold.weight]
    macs = sum(term.constant * math.prod(int(mask[axis].sum()) for axis in term.axes) for term in work)
    return Cost(params, round(macs), total)
