"""Perplexities: the exponential of the mean cross entropy of a word, over all words that count."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from secateur.data.batch import Batch
from secateur.data.next_tokens import IGNORED_LABEL, tokens_of
from secateur.evaluation.outputs import main_output
from secateur.utils.dtypes import at_least_single

WordReader = Callable[[Batch], Any]
"""A function from a batch to the words that the model's scores predict, (rows, positions); anything else where none."""


def labelled_words(batch: Batch) -> Any:
    """Return the targets of a batch."""
    return batch.target


def next_words(batch: Batch) -> Any:
    """Return the targets of a batch, or without any the next tokens of its input."""
    return tokens_of(batch)[:, 1:] if batch.target is None else batch.target


class PerplexityMeter:
    """The perplexities of several networks, batch by batch.

    Args:
        words_of: the words that the scores of a batch predict. There may be fewer of them than positions with scores,
            as without the word behind the last token.
        networks: the number of networks.
    """

    def __init__(self, words_of: WordReader, networks: int = 1) -> None:
        self._words_of = words_of
        self._losses = [0.0] * networks
        self._words = 0

    def add(self, batch: Batch, outputs: Sequence[Any]) -> None:
        """Add the outputs of the networks on a batch; one whose words do not fit its scores is left out.

        Args:
            batch: the batch.
            outputs: the output of each network, (rows, positions, vocabulary).
        """
        words = self._words_of(batch)
        scores = [main_output(output) for output in outputs]
        if not all(_are_of(words, network_scores) for network_scores in scores):
            return
        self._words += int((words != IGNORED_LABEL).sum())
        for network, network_scores in enumerate(scores):
            self._losses[network] += _summed_loss(network_scores[:, : words.shape[1]], words)

    def values(self) -> list[float | None]:
        """Return the perplexity of each network, None where no word counted, infinite beyond what a float holds."""
        return [_exponential(loss / self._words) if self._words else None for loss in self._losses]


def _are_of(words: Any, scores: Tensor) -> bool:
    """Return whether words are class numbers for the first positions of scores (rows, positions, classes)."""
    if not isinstance(words, Tensor) or words.is_floating_point() or (words.dim(), scores.dim()) != (2, 3):
        return False
    if words.shape[0] != scores.shape[0] or not 0 < words.shape[1] <= scores.shape[1]:
        return False
    are_classes = (words >= 0) & (words < scores.shape[-1])
    return bool((are_classes | (words == IGNORED_LABEL)).all())


def _summed_loss(scores: Tensor, words: Tensor) -> float:
    """Return the sum of the cross entropies of words, in double precision."""
    losses = F.cross_entropy(
        at_least_single(scores).transpose(1, 2), words.long(), reduction="none", ignore_index=IGNORED_LABEL
    )
    return float(losses.double().sum())


def _exponential(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
