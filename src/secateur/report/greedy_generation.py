"""Greedy generation of text by a language model, one token after another, with its times."""

import itertools
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.next_tokens import is_causal_language_model
from secateur.evaluation.generation import cached_inputs
from secateur.evaluation.outputs import main_output
from secateur.utils.default_device import on_callers_device


@dataclass(frozen=True)
class Generation:
    """Greedily generated tokens, the seconds of the prompt and of each token, and the cache's bytes for a token."""

    tokens: list[int]
    prompt_length: int
    prefill: float
    steps: list[float]
    cache_bytes: float


def generate(model: nn.Module, row: Tensor, count: int) -> Generation:
    """Generate tokens greedily: with a cache by models of the transformers library, else on all tokens for each one.

    Models of a user's own may take no more tokens than a row has, so what they generate is the end of the row. Models
    of the library that have a table of positions, as GPT-2, take no more tokens than the table has rows.

    Args:
        model: a causal language model.
        row: tokens to continue. (1, length)
        count: the number of tokens to generate.
    """
    if not is_causal_language_model(type(model).__name__):
        return _without_cache(model, _with_room(row, row.shape[1], count), min(count, row.shape[1]))
    config: Any = model.config
    most = getattr(config, "max_position_embeddings", None) or row.shape[1] + count
    return _with_cache(model, _with_room(row, most, count), min(count, most))


def _with_room(row: Tensor, most: int, count: int) -> Tensor:
    """Return the beginning of a row that leaves room for tokens, where a model takes only so many; one at least.

    The last token that is generated is not read.
    """
    return row[:, : max(most - count + 1, 1)]


def _with_cache(model: Any, prompt: Tensor, count: int) -> Generation:
    forward = on_callers_device(model)
    start = time.perf_counter()
    output = forward(input_ids=prompt, use_cache=True)
    cache = cached_inputs(model, output)
    token = output.logits[:, -1:].argmax(-1)
    ends = [time.perf_counter()]
    tokens = [int(token)]
    for _ in range(count - 1):
        output = forward(input_ids=token, **cache, use_cache=True)
        cache = cached_inputs(model, output)
        token = output.logits[:, -1:].argmax(-1)
        tokens.append(int(token))  # waits for the device
        ends.append(time.perf_counter())
    layers = [layer for value in cache.values() for layer in getattr(value, "layers", ())]
    values = [tensor for layer in layers for tensor in (layer.keys, layer.values) if isinstance(tensor, Tensor)]
    cache_bytes = sum(tensor.numel() * tensor.element_size() / tensor.shape[-2] for tensor in values)
    return Generation(tokens, prompt.shape[1], ends[0] - start, _durations(ends), cache_bytes)


def _without_cache(model: nn.Module, prompt: Tensor, count: int) -> Generation:
    forward = on_callers_device(model)
    text, ends = prompt, [time.perf_counter()]
    for _ in range(count):
        token = main_output(forward(text))[:, -1:].argmax(-1)
        text = torch.cat([text, token], 1)
        ends.append(time.perf_counter())
    prefill, *steps = _durations(ends)
    return Generation(text[0, prompt.shape[1] :].tolist(), prompt.shape[1], prefill, steps, 0.0)


def _durations(ends: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(ends)]
