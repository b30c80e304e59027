"""Label rule of products with a stack of weights, one for each expert: the neurons inside them are units."""

import math

from torch import Tensor

from secateur.coupling.labels import Weight
from secateur.coupling.rules.context import OpContext, freeze_arguments
from secateur.coupling.rules.layer_units import COMPUTED_WEIGHT
from secateur.coupling.rules.op_rule import OpRule, RuleTable


def grouped_matmul(op: OpContext) -> Tensor:
    """Multiply rows sorted by expert with a stack of matrices (experts, in, out).

    The same neuron of every expert is one unit.
    """
    names = list(op.args)
    x, weight = op.activation(names[0]), op.args[names[1]]
    if not isinstance(weight, Weight) or len(weight.shape) != 3 or x.dim() != 2:
        frozen: Tensor = freeze_arguments(op, COMPUTED_WEIGHT)
        return frozen
    op.tracer.experts.stacks.append((op.node, weight, x))
    output_labels = op.axis_labels(weight, 2, produces=True)
    input_labels = op.axis_labels(x, -1)
    inputs = op.axis_labels(weight, 1)
    op.couple(inputs, input_labels)
    op.read(names[0], 1, input_labels)
    op.count(math.prod(op.shape) / len(output_labels), output_labels, inputs)
    return op.broadcast(output_labels, 1)


RULES: RuleTable = {"_grouped_mm transformers::grouped_mm_fallback": OpRule(grouped_matmul)}
