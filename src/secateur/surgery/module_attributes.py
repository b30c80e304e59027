"""Module attributes that repeat the size of a tensor. One table: module type -> attributes."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from secateur.coupling.grouped_convolutions import goes_in_groups

Shapes = Mapping[str, tuple[int, ...]]
AttributeRule = Callable[[Any, Shapes], dict[str, Any]]


def _linear(module: Any, shapes: Shapes) -> dict[str, Any]:
    out_features, in_features = shapes["weight"]
    return {"in_features": in_features, "out_features": out_features}


def _convolution(module: Any, shapes: Shapes) -> dict[str, Any]:
    if module.transposed:
        return _transposed(module, shapes)
    out_channels, per_group = shapes["weight"][:2]
    groups = module.groups
    if goes_in_groups(groups, module.in_channels // groups):
        groups = groups * out_channels // module.out_channels
    return {"out_channels": out_channels, "in_channels": per_group * groups, "groups": groups}


def _transposed(module: Any, shapes: Shapes) -> dict[str, Any]:
    in_channels, per_group = shapes["weight"][:2]
    groups = module.groups * in_channels // module.in_channels if module.groups > 1 else 1
    return {"in_channels": in_channels, "out_channels": per_group * groups, "groups": groups}


def _batch_norm(module: Any, shapes: Shapes) -> dict[str, Any]:
    lengths = [shapes[name][0] for name in ("weight", "running_mean") if name in shapes]
    return {"num_features": lengths[0]} if lengths else {}


def _layer_norm(module: Any, shapes: Shapes) -> dict[str, Any]:
    return {"normalized_shape": shapes["weight"]} if "weight" in shapes else {}


def _group_norm(module: Any, shapes: Shapes) -> dict[str, Any]:
    if "weight" not in shapes:
        return {}
    (channels,) = shapes["weight"]
    groups = module.num_groups * channels // module.num_channels if module.num_groups > 1 else 1
    return {"num_channels": channels, "num_groups": groups}


def _bilinear(module: Any, shapes: Shapes) -> dict[str, Any]:
    return dict(zip(("out_features", "in1_features", "in2_features"), shapes["weight"], strict=True))


def _recurrent(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of layers (`weight_hh_l0`) and cells (`weight_hh`)."""
    last = "_l0" if "weight_hh_l0" in shapes else ""
    return {"hidden_size": shapes[f"weight_hh{last}"][1], "input_size": shapes[f"weight_ih{last}"][1]}


def _embedding(module: Any, shapes: Shapes) -> dict[str, Any]:
    return {"embedding_dim": shapes["weight"][1]}


def _attention(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes; `_qkv_same_embed_dim` disables torch's fast path, which assumes the old shapes."""
    fused = "in_proj_weight" in shapes
    rows, width = shapes["in_proj_weight" if fused else "q_proj_weight"]
    heads = rows // (3 if fused else 1) // module.head_dim
    others = {} if fused else {"kdim": shapes["k_proj_weight"][1], "vdim": shapes["v_proj_weight"][1]}
    return {
        "embed_dim": width,
        "kdim": width,
        "vdim": width,
        **others,
        "num_heads": heads,
        "_qkv_same_embed_dim": False,
    }


ATTRIBUTE_RULES: Mapping[type[nn.Module], AttributeRule] = {
    nn.Linear: _linear,
    nn.modules.conv._ConvNd: _convolution,
    nn.modules.batchnorm._NormBase: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.MultiheadAttention: _attention,
    nn.Bilinear: _bilinear,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _recurrent,
}

# The same for classes of other libraries, by their full names.
FAMILIES: Mapping[str, AttributeRule] = {
    "transformers.pytorch_utils.Conv1D": lambda module, shapes: dict(zip(("nx", "nf"), shapes["weight"], strict=True)),
}

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
        mender = ATTRIBUTE_RULES.get(kind) or FAMILIES.get(f"{kind.__module__}.{kind.__qualname__}")
        if mender is not None:
            try:
                changed = mender(module, shapes)
            except KeyError:  # its weight is not a parameter of its own
                return {}
            return {name: value for name, value in changed.items() if getattr(module, name, value) != value}
    return {}
