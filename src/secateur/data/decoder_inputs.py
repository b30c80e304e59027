"""Inputs of a decoder that a model of the transformers library makes from labels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.data.next_tokens import IGNORED_LABEL, can_generate
from secateur.errors import DataError

DECODER_TOKENS, DECODER_EMBEDDINGS = "decoder_input_ids", "decoder_inputs_embeds"
LIBRARY_SHIFT = "prepare_decoder_input_ids_from_labels"  # a method of most encoder-decoder models of the library


def with_decoder_tokens(model: nn.Module | None, batches: Sequence[Batch]) -> list[Batch]:
    """Return batches with the tokens of the decoder, for models that would make them from their labels.

    Encoder-decoder models of the transformers library (T5, BART, Whisper) take `labels`, and begin the decoder's tokens
    with the start token of their configuration. Labels are no inputs here, so the tokens are made before.

    Args:
        model: the model; None if it is not known.
        batches: the batches, with labels as their targets.

    Raises:
        DataError: the model's configuration lacks the start token or the token of padding.
    """
    if not _makes_decoder_tokens(model):
        return list(batches)
    return [_with_decoder_tokens(model, batch) for batch in batches]


def decoder_label_mask(model: nn.Module | None, batch: Batch) -> Tensor | None:
    """Return where a decoder's tokens are more than padding, by the labels that they are made from; None for others.

    The tokens of a row end at its last label that counts; a row without such labels has its start token alone. Tokens
    that are given with the labels are read as they are, unless they are those that the model makes.

    Args:
        model: the model; None if it is not known.
        batch: a batch that has the tokens of the decoder.

    Returns:
        1 up to the last label that counts, 0 behind it, (rows, length).
    """
    tokens, labels = batch.kwargs.get(DECODER_TOKENS), batch.target
    if not _makes_decoder_tokens(model) or not _are_of_tokens(labels) or not isinstance(tokens, Tensor):
        return None
    if not torch.equal(tokens, _tokens_of_labels(model, labels)):
        return None
    is_token = (labels != IGNORED_LABEL).long()
    is_token[:, :1] = 1
    mask: Tensor = is_token.flip(1).cummax(1).values.flip(1)  # (rows, length)
    return mask


def _makes_decoder_tokens(model: Any) -> bool:
    """Return True for models that have an encoder and make the tokens of their decoder from labels."""
    if not can_generate(model) or not getattr(model.config, "is_encoder_decoder", False):
        return False
    return hasattr(model, LIBRARY_SHIFT) or getattr(model.config, "decoder_start_token_id", None) is not None


def _with_decoder_tokens(model: Any, batch: Batch) -> Batch:
    has_inputs = bool(batch.args or {DECODER_TOKENS, DECODER_EMBEDDINGS} & batch.kwargs.keys())
    if has_inputs or not _are_of_tokens(batch.target):
        return batch
    return replace(batch, kwargs={**batch.kwargs, DECODER_TOKENS: _tokens_of_labels(model, batch.target)})


def _are_of_tokens(labels: Any) -> bool:
    return isinstance(labels, Tensor) and labels.dim() == 2 and not labels.is_floating_point()


def _tokens_of_labels(model: Any, labels: Tensor) -> Tensor:
    """Return labels behind the start token, without the last one, as the model's own function does if it has one.

    Raises:
        DataError: the model's function needs a token that its configuration lacks.
    """
    if not hasattr(model, LIBRARY_SHIFT):  # such as Whisper
        padding = int(getattr(model.config, "pad_token_id", None) or 0)
        start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id)
        tokens = torch.cat([start, labels[:, :-1]], 1)
        return tokens.masked_fill(tokens == IGNORED_LABEL, padding)
    try:
        shifted: Tensor = getattr(model, LIBRARY_SHIFT)(labels)
    except ValueError as failure:
        raise DataError(
            f"{type(model).__name__} can't make its decoder's tokens from labels: {failure}; set it in model.config, "
            f"or give {DECODER_TOKENS} with the labels"
        ) from failure
    return shifted
