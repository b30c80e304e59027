"""Attributes of torch.nn modules that repeat the sizes of their tensors, and their values for new shapes."""

from typing import Any

from secateur.coupling.grouped_convolutions import removes_whole_groups
from secateur.coupling.rules.op_rule import Shapes


def linear_attributes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of a linear layer."""
    out_features, in_features = shapes["weight"]
    return {"in_features": in_features, "out_features": out_features}


def conv1d_attributes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of the transformers library's `Conv1D`, a linear layer with a transposed weight."""
    return dict(zip(("nx", "nf"), shapes["weight"], strict=True))


def convolution_attributes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of a convolution, transposed or not."""
    if module.transposed:
        return _transposed_attributes(module, shapes)
    out_channels, per_group = shapes["weight"][:2]
    groups = module.groups
    if removes_whole_groups(groups, module.in_channels // groups):
        groups = groups * out_channels // module.out_channels
    return {"out_channels": out_channels, "in_channels": per_group * groups, "groups": groups}


def _transposed_attributes(module: Any, shapes: Shapes) -> dict[str, Any]:
    in_channels, per_group = shapes["weight"][:2]
    groups = module.groups * in_channels // module.in_channels if module.groups > 1 else 1
    return {"in_channels": in_channels, "out_channels": per_group * groups, "groups": groups}


def batch_norm_attributes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of a batch norm or an instance norm."""
    lengths = [shapes[name][0] for name in ("weight", "running_mean") if name in shapes]
    return {"num_features": lengths[0]} if lengths else {}


def layer_norm_attributes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of a layer norm or an RMS norm."""
    return {"normalized_shape": shapes["weight"]} if "weight" in shapes else {}


def group_norm_attributes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of a group norm."""
    if "weight" not in shapes:
        return {}
    (channels,) = shapes["weight"]
    groups = module.num_groups * channels // module.num_channels if module.num_groups > 1 else 1
    return {"num_channels": channels, "num_groups": groups}


def bilinear_attributes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of a bilinear layer."""
    return dict(zip(("out_features", "in1_features", "in2_features"), shapes["weight"], strict=True))


def recurrent_attributes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of recurrent layers (`weight_hh_l0`) and cells (`weight_hh`)."""
    suffix = "_l0" if "weight_hh_l0" in shapes else ""
    return {"hidden_size": shapes[f"weight_hh{suffix}"][1], "input_size": shapes[f"weight_ih{suffix}"][1]}


def embedding_attributes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of an embedding."""
    return {"embedding_dim": shapes["weight"][1]}


def attention_attributes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """Return the attributes of `nn.MultiheadAttention`; `_qkv_same_embed_dim` rules out the fast path of torch."""
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
