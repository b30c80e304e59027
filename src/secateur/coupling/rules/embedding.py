"""Label rules of embeddings: their width is an axis of units."""

from typing import Any

from torch import Tensor, nn

from secateur.coupling.labels import Weight
from secateur.coupling.rules.context import OpContext, freeze_arguments, frozen
from secateur.coupling.rules.module_attributes import embedding_attributes
from secateur.coupling.rules.op_rule import OpRule, RuleTable


def embedding(op: OpContext) -> Any:
    """Freeze the rows, which the input picks from; the width is a new axis of units."""
    weight = op.args["weight"]
    if isinstance(weight, Tensor):
        return freeze_arguments(op, "its table is computed from other tensors")
    op.freeze(weight.labels[0], "rows are chosen by the input")
    return op.broadcast(op.axis_labels("weight", 1, produces=True), -1)


def embedding_bag(op: OpContext) -> Any:
    """Pass sums, means or maxima of rows as an embedding; the other results count entries."""
    result, *count_shapes = op.shape
    rows = embedding(op.with_args(op.args, result))
    sample_weights = op.args.get("per_sample_weights")
    if isinstance(sample_weights, Tensor | Weight):
        op.freeze(sample_weights, "weighs whole rows")
    return (rows, *(rows if shape == result and len(shape) == 2 else frozen(shape) for shape in count_shapes))


RULES: RuleTable = {
    "embedding": OpRule(embedding, attributes={nn.Embedding: embedding_attributes}),
    "embedding_bag": OpRule(embedding_bag),
}
