"""The words that the outputs of a language model predict, and the tokens that it reads, for its report."""

from collections.abc import Sequence

import torch
from torch import nn

from secateur.data.batch import Batch
from secateur.data.next_tokens import tokens_of
from secateur.data.padding import DECODER
from secateur.evaluation.perplexity import WordReader, labelled_words, next_words
from secateur.evaluation.token_scores import scores_words
from secateur.graph.contexts import isolated_evaluation
from secateur.graph.program import Program
from secateur.report.causal_models import is_causal


def word_reader(dense: nn.Module, program: Program, batches: Sequence[Batch]) -> WordReader | None:
    """Return a function that reads the words that a batch's outputs predict: labels, or the next tokens.

    None where outputs are no scores of words, or where there are no labels and a model reads later tokens.
    """
    if not scores_words(program):
        return None
    if all(batch.target is not None for batch in batches):
        return labelled_words
    example = batches[0].take(torch.tensor([0])) if batches[0].is_divisible else batches[0]
    with isolated_evaluation(dense, program.writes):
        return next_words if is_causal(dense, example) else None


def token_count(batch: Batch) -> int:
    """Return the number of tokens of a batch; 0 where the words that are predicted are not those that are read."""
    has_decoder = any(name.startswith(DECODER) for name in batch.kwargs)
    return 0 if has_decoder else tokens_of(batch).numel()
