"""Labels of causal language models as targets of their outputs: the next tokens."""

import re
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch

TOKENS = "input_ids"  # the name of tokens in models of the transformers library
IGNORED_LABEL = -100  # the label of what does not count
# Classes of the transformers library whose output at a position predicts the token behind it.
CAUSAL = re.compile(r"ForCausalLM$|(?<!With)(?<!XLNet)LMHeadModel$")
WITH_HEAD = re.compile(r"For[A-Z]|LMHead")  # further classes of the library, whose loss compares equal positions


def is_causal_language_model(title: str) -> bool:
    """Return True for the class name of a causal language model of the transformers library.

    Examples:
        >>> is_causal_language_model("LlamaForCausalLM"), is_causal_language_model("BertForMaskedLM")
        (True, False)
    """
    return CAUSAL.search(title) is not None


def can_generate(model: nn.Module | None) -> bool:
    """Return True for a model of the transformers library that generates text.

    The configuration of other models may be of any kind, and is not read.
    """
    answer = getattr(model, "can_generate", None)
    return callable(answer) and hasattr(model, "config") and bool(answer())


def with_next_tokens(batches: Iterable[Batch], title: str) -> list[Batch]:
    """Return batches whose targets belong to the outputs at the same positions.

    Models of the transformers library take `labels` like the input tokens, and shift them in their own loss where they
    are causal. `labels` that repeat the tokens in all batches are shifted for models of a user's own, too: at the same
    position they would say nothing. Targets that are given as such, `(inputs, target)`, are not shifted.

    Args:
        batches: the batches.
        title: the name of the model's class.
    """
    all_batches = list(batches)
    labelled_batches = [batch for batch in all_batches if batch.has_labels]
    is_causal = is_causal_language_model(title)
    if not is_causal and labelled_batches and WITH_HEAD.search(title) is None:
        # a batch alone may repeat the tokens of a masked model
        is_causal = all(map(_labels_repeat_tokens, labelled_batches))
    return [_with_next_tokens(batch, is_causal) if batch.has_labels else batch for batch in all_batches]


def tokens_of(batch: Batch) -> Tensor:
    """Return the tokens of a batch: `input_ids`, or the first input, (rows, length)."""
    tokens: Tensor = batch.kwargs[TOKENS] if TOKENS in batch.kwargs else batch.tensors[0]
    return tokens


def _labels_repeat_tokens(batch: Batch) -> bool:
    """Return whether all labels that count are the input token at their position."""
    labels = batch.target
    if not isinstance(labels, Tensor) or labels.is_floating_point() or not batch.tensors:
        return False
    tokens = tokens_of(batch)
    return tokens.shape == labels.shape and bool(((tokens == labels) | (labels == IGNORED_LABEL)).all())


def _with_next_tokens(batch: Batch, is_causal: bool) -> Batch:
    target = batch.target
    if is_causal and isinstance(target, Tensor) and target.dim() == 2 and not target.is_floating_point():
        target = torch.cat([target[:, 1:], torch.full_like(target[:, :1], IGNORED_LABEL)], 1)
    return replace(batch, target=target, has_labels=False)
