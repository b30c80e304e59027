"""Module attributes that repeat the size of a tensor or count units, and their values in a cut model."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from secateur.coupling.rules.op_rule import Shapes
from secateur.coupling.rules.registry import attribute_rule_of

# Attributes of attention modules and the like that count a group's units, or the entries that they make up, by the
# kind of group. They are changed only where their value is the old size.
HEAD_COUNTS = frozenset(
    {"num_heads", "n_heads", "heads", "n_head", "nhead", "num_attention_heads", "num_key_value_heads"}
)
HEAD_WIDTHS = frozenset({"all_head_size", "inner_dim", "attn_dim", "inner_width", "attention_width", "split_size"})
OTHER_WIDTHS = frozenset(
    {"embed_dim", "hidden_size", "dim", "d_model", "n_embd", "width", "channels", "num_channels", "num_features"}
)
COUNTS: Mapping[str, frozenset[str]] = {
    "heads": HEAD_COUNTS,
    "bundles": HEAD_COUNTS,
    "head width": frozenset({"head_dim", "attention_head_size", "head_size", "dim_head", "key_value_proj_dim"}),
    "experts": frozenset({"num_experts", "num_local_experts", "n_experts"}),
}
WIDTHS: Mapping[str, frozenset[str]] = {
    "heads": HEAD_WIDTHS,
    "bundles": HEAD_WIDTHS | OTHER_WIDTHS,
    "head width": HEAD_WIDTHS,
    "experts": frozenset(),
}

COUNTING_NAMES = frozenset().union(*COUNTS.values(), *WIDTHS.values(), OTHER_WIDTHS)


def updated_attributes(module: nn.Module, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of a torch.nn module that its new tensor shapes change, with their new values."""
    for kind in type(module).__mro__:
        attribute_rule = attribute_rule_of(kind)
        if attribute_rule is not None:
            try:
                changed_attributes = attribute_rule(module, shapes)
            except KeyError:  # its weight is not a parameter of its own
                return {}
            return {name: value for name, value in changed_attributes.items() if getattr(module, name, value) != value}
    return {}
