"""The check that a model is a causal language model: of the transformers library, or of a user's own."""

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.data.next_tokens import WITH_HEAD, is_causal_language_model, tokens_of
from secateur.errors import OptionError
from secateur.evaluation.outputs import main_output
from secateur.evaluation.token_scores import SEQUENCE_DIMS
from secateur.graph.contexts import run_module

MATRIX_DIMS = 2  # (rows, length)


def is_causal(model: nn.Module, batch: Batch) -> bool:
    """Return whether a model's scores at a position depend on no token behind it.

    The classes of the transformers library tell by their name; other models run twice.
    """
    title = type(model).__name__
    return is_causal_language_model(title) or (WITH_HEAD.search(title) is None and _scores_next_tokens(model, batch))


def check_causal(model: nn.Module, batch: Batch) -> None:
    """Check that the scores at a position depend on no token behind it.

    Raises:
        OptionError: the model is no causal language model.
    """
    if not is_causal(model, batch):
        raise OptionError(
            f"{type(model).__name__} is no causal language model; give one of transformers (...ForCausalLM, "
            "...LMHeadModel), or one that returns scores of the next token (rows, length, vocabulary) from those so far"
        )


def _scores_next_tokens(model: nn.Module, batch: Batch) -> bool:
    """Return whether a model gives scores of words at each position that stay as they are with another last token."""
    tokens = tokens_of(batch)
    if tokens.is_floating_point() or tokens.dim() != MATRIX_DIMS:
        return False
    changed_tokens = torch.cat([tokens[:, :-1], tokens[:, :1]], 1)

    def change_last_token(tensor: Tensor) -> Tensor:
        return changed_tokens if tensor is tokens else tensor

    batches = (batch, batch.map(change_last_token))
    scores, changed_scores = (main_output(run_module(model, inputs)) for inputs in batches)
    are_words = scores.dim() == SEQUENCE_DIMS and scores.shape[-1] > int(tokens.max())
    return are_words and torch.allclose(scores[:, :-1], changed_scores[:, :-1], rtol=1e-3, atol=1e-4)
