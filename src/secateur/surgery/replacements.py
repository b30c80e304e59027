"""Replacements for torch modules whose own code can't express a cut shape.

The parameters keep their names, and `isinstance` still holds.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CutMultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose heads together may be wider or narrower than its input and output."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute `nn.MultiheadAttention.forward` with the kept heads."""
        is_batched = query.dim() == 3
        swap = is_batched and not self.batch_first
        inputs = [x.transpose(0, 1) if swap else x if is_batched else x.unsqueeze(0) for x in (query, key, value)]
        query, key, value = self._projected(*inputs)  # (batch, heads, length, width of a head)
        mask = self._mask(query, key, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = query @ key.transpose(-2, -1) * self.head_dim**-0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            y = F.dropout(weights, dropout) @ value
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if is_batched else weights.squeeze(0)
        else:
            y = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return (y.transpose(0, 1) if swap else y if is_batched else y.squeeze(0)), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None, None, None)
        query, key, value = (
            F.linear(x, weight, bias) for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        if self.bias_k is not None and self.bias_v is not None:
            key = torch.cat([key, self.bias_k.expand(key.shape[0], -1, -1)], 1)
            value = torch.cat([value, self.bias_v.expand(value.shape[0], -1, -1)], 1)
        if self.add_zero_attn:
            key, value = F.pad(key, (0, 0, 0, 1)), F.pad(value, (0, 0, 0, 1))
        query, key, value = (x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value))
        return query, key, value

    def _mask(
        self, query: Tensor, key: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None
    ) -> Tensor | None:
        """Return the summand of the scores. (batch, heads, queries, keys), of which each but the last may be 1"""
        total = None
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.view(-1, 1, 1, key_padding_mask.shape[-1])
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
        for mask in (attn_mask, key_padding_mask):
            if mask is None:
                continue
            if mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(mask, float("-inf"))
            total = mask if total is None else total + mask
        missing = 0 if total is None else key.shape[2] - total.shape[-1]
        return F.pad(total, (0, missing)) if total is not None and missing else total


class SkippedBlock(nn.Module):
    """The identity, in place of a block that was cut and may be called with several inputs, or by their names."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first input, in the form of the block's output."""
        return args[0] if args else next(iter(kwargs.values()))


def skipped_block(model: nn.Module, path: str) -> nn.Module:
    """Return what stands in place of a block: where it is in a sequence and takes one input, torch's own identity.

    The cut model then is made of torch's modules and the user's. Code that goes through a sequence itself may call its
    blocks with further inputs, which torch's identity refuses.

    Args:
        model: the model.
        path: the path of the block, which it still has.
    """
    parent, block = model.get_submodule(path.rpartition(".")[0]), model.get_submodule(path)
    is_in_sequence = type(parent).forward is nn.Sequential.forward
    return nn.Identity() if is_in_sequence and _takes_one_input(block) else SkippedBlock()


def _takes_one_input(block: nn.Module) -> bool:
    parameters = list(inspect.signature(block.forward).parameters.values())
    return len(parameters) == 1 and parameters[0].kind not in (
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    )


REPLACEMENTS: Mapping[type[nn.Module], type[nn.Module]] = {nn.MultiheadAttention: CutMultiheadAttention}


def replace_class(module: Any) -> None:
    """Give a module the class that replaces its own."""
    kind = REPLACEMENTS.get(type(module))
    if kind is not None:
        module.__class__ = kind
        module._qkv_same_embed_dim = False  # torch's fast path asks for this, and must not be taken
