"""Inputs of a decoder that a model of the transformers library makes from labels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.data.next_tokens import IGNORED_LABEL, can_generate

DECODER_TOKENS, DECODER_EMBEDDINGS = "decoder_input_ids", "decoder_inputs_embeds"


def with_decoder_tokens(model: nn.Module | None, batches: Sequence[Batch]) -> list[Batch]:
    """Return batches with the tokens of the decoder, for models that would make them from their labels.

    Encoder-decoder models of the transformers library (T5, BART, Whisper) take `labels`, and begin the decoder's tokens
    with the start token of their configuration. Labels are no inputs here, so the tokens are made before.

    Args:
        model: the model; None if it is not known.
        batches: the batches, with labels as their targets.
    """
    start = _start_token(model)
    return (
        list(batches)
        if start is None
        else [_with_decoder_tokens_of_labels(batch, start, _padding_of_labels(model)) for batch in batches]
    )


def _start_token(model: Any) -> int | None:
    """Return the token that a decoder begins with; None for models that have no encoder, or generate no text."""
    if not can_generate(model) or not getattr(model.config, "is_encoder_decoder", False):
        return None
    return getattr(model.config, "decoder_start_token_id", None)


def _padding_of_labels(model: Any) -> int:
    return int(getattr(model.config, "pad_token_id", None) or 0)


def _with_decoder_tokens_of_labels(batch: Batch, start: int, padding: int) -> Batch:
    labels = batch.target
    is_of_tokens = isinstance(labels, Tensor) and labels.dim() == 2 and not labels.is_floating_point()
    if not is_of_tokens or batch.args or {DECODER_TOKENS, DECODER_EMBEDDINGS} & batch.kwargs.keys():
        return batch
    tokens = torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], 1)
    return replace(batch, kwargs={**batch.kwargs, DECODER_TOKENS: tokens.masked_fill(tokens == IGNORED_LABEL, padding)})
