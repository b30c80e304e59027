"""How labels pass products with a stack of weights, one for each expert: the neurons inside them are units."""

import math

from torch import Tensor

from secateur.coupling.label_tracer import Weight, broadcast_labels
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.matmul import freeze_all


def grouped_matmul(call: OpContext) -> Tensor:
    """Rows sorted by expert times a stack of matrices (experts, in, out): the same neuron of every expert goes."""
    names = list(call.args)
    x, weight = call.activation(names[0]), call.args[names[1]]
    if not isinstance(weight, Weight) or len(weight.shape) != 3 or x.dim() != 2:
        return freeze_all(call, "its weight is computed from other tensors")
    call.trace.stacks.append((call.node, weight, x))
    out = call.trace.along(weight, 2, call.node, produces=True)
    read = call.trace.along(x, -1, call.node)
    owned = call.trace.along(weight, 1, call.node)
    call.tie(owned, read)
    call.trace.read(call.node, names[0], 1, read)
    call.trace.count(call.node, math.prod(call.shape) / len(out), out, owned)
    return broadcast_labels(out, 1, call.shape)
