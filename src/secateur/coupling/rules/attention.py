"""Label rule of scaled dot-product attention."""

import math

import torch
from torch import Tensor, nn

from secateur.coupling.labels import broadcast_labels, labelled_axes
from secateur.coupling.rules.context import OpContext, freeze_arguments
from secateur.coupling.rules.elementwise import elementwise
from secateur.coupling.rules.heads import couple_heads
from secateur.coupling.rules.module_attributes import attention_attributes
from secateur.coupling.rules.op_rule import OpRule, RuleTable


def attention(op: OpContext) -> Tensor:
    """Make a unit of each head; without a head axis, the width of the values passes."""
    query, key, value = (op.activation(name) for name in ("query", "key", "value"))
    if op.args.get("enable_gqa") and key.shape[-3] < query.shape[-3]:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    batch = {d - t.dim() for t in (query, key, value) for d in labelled_axes(t) if d < t.dim() - 2}
    if not batch or op.tracer.scope.by_width:
        return _attend_by_width(op, query, key, value)
    heads = couple_heads(op, [query, key, value], batch)
    if heads is None:
        frozen: Tensor = freeze_arguments(op, "its heads are shared or cross another kind of units")
        return frozen
    dim, units = heads
    if op.args.get("attn_mask") is not None:
        shape = torch.Size((*op.shape[:-1], key.shape[-2]))
        elementwise(op.with_args({"scores": broadcast_labels(units, dim, shape), "mask": op.args["attn_mask"]}, shape))
    examples, tokens = math.prod(op.shape[:-2]) / len(units), query.shape[-2] * key.shape[-2]
    op.count(examples * tokens * (query.shape[-1] + value.shape[-1]), units)
    return op.broadcast(units, dim)


def _attend_by_width(op: OpContext, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Pass the width of the values; read that of queries and keys where it is a unit of its own."""
    columns = op.axis_labels(value, -1)
    examples, tokens = math.prod(op.shape[:-2]), query.shape[-2] * key.shape[-2]
    if op.tracer.scope.by_width:
        width_labels = op.axis_labels(query, -1)
        op.couple(width_labels, op.axis_labels(key, -1))
        op.read("query", query.dim() - 1, width_labels)
        op.tracer.attention.widths.extend([width_labels, columns])
        op.count(examples * tokens, width_labels)
    else:
        for operand in (query, key):
            op.freeze(operand, "the scale of the scores depends on the width")
        op.count(examples * tokens * query.shape[-1])
    op.count(examples * tokens, columns)
    return op.broadcast(columns, len(op.shape) - 1)


RULES: RuleTable = {
    "scaled_dot_product_attention": OpRule(
        attention, scaled_by_width=True, attributes={nn.MultiheadAttention: attention_attributes}
    ),
}
