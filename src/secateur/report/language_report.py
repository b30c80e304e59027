"""Figures of a causal language model beside the dense one: perplexity, tokens per second, memory and generated text."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from secateur.data.batch import Batch, on_device
from secateur.data.model_inputs import device_of
from secateur.data.next_tokens import tokens_of
from secateur.entry import entry_point
from secateur.errors import DataError
from secateur.evaluation.perplexity import PerplexityMeter, next_words
from secateur.graph.contexts import isolated_evaluation, run_module
from secateur.importance.data_checks import batches_of_model
from secateur.options.call_checks import checked_calls
from secateur.options.table import check_option
from secateur.report.causal_models import check_causal
from secateur.report.greedy_generation import Generation, generate
from secateur.utils.html_table import html_table
from secateur.utils.text_table import align_columns

REPETITIONS = 3


@dataclass(frozen=True)
class LanguageFigures:
    """The figures of one language model.

    Args:
        perplexity: the exponential of the mean cross entropy of the next token, over all tokens that count.
        prefill: tokens per second of a prompt, with a batch of one.
        decoding: generated tokens per second, one at a time with a cache, with a batch of one.
        bytes: of parameters and buffers.
        cache_bytes: of the cache, for each token of a sequence.
        sample: greedily generated text; "" without a tokenizer that has `decode`.
    """

    perplexity: float
    prefill: float
    decoding: float
    bytes: int
    cache_bytes: float
    sample: str


@checked_calls
@dataclass(frozen=True)
class LanguageReport:
    """The figures of the dense and of the small language model, on the same tokens.

    Args:
        dense: of the dense model.
        small: of the small model.
        prompt: the text that both samples continue; "" without one.
    """

    dense: LanguageFigures
    small: LanguageFigures
    prompt: str

    def rows(self) -> list[list[str]]:
        """Return the table of the figures, its header first."""
        rows = [["", "dense", "small", "small/dense"]]
        for name, digits in (("perplexity", 2), ("prefill", 0), ("decoding", 1), ("bytes", 0), ("cache_bytes", 0)):
            values = [float(getattr(figures, name)) for figures in (self.dense, self.small)]
            ratio = f"{values[1] / values[0]:.3f}" if values[0] else ""
            rows.append([NAMES[name], *(f"{value:,.{digits}f}" for value in values), ratio])
        return rows

    def __str__(self) -> str:
        lines = align_columns(self.rows())
        if self.dense.sample or self.small.sample:
            lines += ["", f"prompt: {self.prompt}", f"dense:  {self.dense.sample}", f"small:  {self.small.sample}"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table("Dense and small language model", self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Return the figures of both models as plain values."""
        return asdict(self)


NAMES = {
    "perplexity": "perplexity",
    "prefill": "prefill, tokens/s",
    "decoding": "decoding, tokens/s",
    "bytes": "bytes",
    "cache_bytes": "cache, bytes/token",
}


@entry_point
def language_report(
    model: nn.Module, small: nn.Module, data: Any, *, tokenizer: Any = None, tokens: int = 32
) -> LanguageReport:
    """Measure a small language model beside the dense one.

    Times are medians of runs of both models in turn, with a batch of one: the first row of `data` as the prompt. Models
    of the transformers library generate with a cache; where they have a table of positions that the row fills, they
    generate the end of the row. Others run on all tokens for each new one, and generate the end of the row, too, as
    they may take no more tokens.

    Args:
        model: the dense model: a causal language model of the transformers library, or one of your own whose output is
            a tensor of scores of the next token, (rows, length, vocabulary), or begins with it.
        small: the small model.
        data: tokens, as `text_batches` makes them, that nothing was fitted to.
        tokenizer: a tokenizer with `decode`, for a sample of generated text.
        tokens: the number of tokens to generate.

    Raises:
        OptionError: a model is no causal language model, or no token is to be generated.
        DataError: the data can't be used.

    Examples:
        >>> import torch, secateur as sc
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
        >>> model, data = GPT2LMHeadModel(config), {"input_ids": torch.randint(3, 64, (2, 8))}
        >>> report = sc.language_report(model, model, data, tokens=2)
        >>> report.small.perplexity / report.dense.perplexity
        1.0
    """
    check_option("tokens", tokens)
    batches = [on_device(batch, device_of(model)) for batch in batches_of_model(model, data)]
    prompt = tokens_of(batches[0])[:1]
    with isolated_evaluation(model), isolated_evaluation(small):
        for network in (model, small):
            check_causal(network, batches[0])
        perplexities = [_perplexity(network, batches) for network in (model, small)]
        runs = [[generate(network, prompt, tokens) for network in (model, small)] for _ in range(REPETITIONS)]
    decode = getattr(tokenizer, "decode", None)
    dense, cut = (
        _measured_figures(network, perplexity, [run[number] for run in runs], decode)
        for number, (network, perplexity) in enumerate(zip((model, small), perplexities, strict=True))
    )
    prompt_tokens = prompt[0, : runs[0][0].prompt_length].tolist()
    return LanguageReport(dense, cut, "" if decode is None else decode(prompt_tokens))


def _perplexity(model: nn.Module, batches: Sequence[Batch]) -> float:
    """Return the perplexity of the next token.

    Raises:
        DataError: no batch has words for the model's scores.
    """
    meter = PerplexityMeter(next_words)
    for batch in batches:
        meter.add(batch, [run_module(model, batch)])
    (perplexity,) = meter.values()
    if perplexity is None:
        raise DataError(
            f"{type(model).__name__} has no scores for the tokens of the data, or no token counts; give batches of "
            "tokens (rows, length) below the size of the vocabulary, for which the model scores each position"
        )
    return perplexity


def _measured_figures(model: nn.Module, perplexity: float, runs: Sequence[Generation], decode: Any) -> LanguageFigures:
    """Return the figures of a model from several runs."""
    prefill = statistics.median(run.prefill for run in runs)
    steps = [step for run in runs for step in run.steps]
    sizes = (tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    return LanguageFigures(
        perplexity,
        runs[0].prompt_length / prefill,
        1 / statistics.median(steps) if steps else math.nan,
        sum(sizes),
        runs[0].cache_bytes,
        "" if decode is None else decode(runs[0].tokens),
    )
