"""Phases of text generation: the prompt, and one token with a cache, as calls that can be timed."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.data.next_tokens import can_generate
from secateur.errors import BudgetError
from secateur.graph.contexts import isolated_evaluation
from secateur.utils.default_device import on_callers_device

DECODE, PREFILL = "decode_latency", "prefill_latency"
PHASES = (DECODE, PREFILL)
LOGITS = "logits_to_keep"
CACHES = ("cache", "past_key_values")
"""The cache's names in outputs and arguments of models: since transformers 5.24, and before."""
MATRIX_DIMS = 2
Call = Callable[[], Any]


@dataclass(frozen=True, eq=False)
class GenerationPhase:
    """One phase of text generation by a model of the transformers library, with a batch of one.

    Args:
        name: "decode_latency": one token, with a cache of `tokens`; "prefill_latency": `tokens` as the prompt.
        tokens: the tokens before the ones that are generated. (1, length)
        encoder_inputs: the inputs of the encoder, by name; empty for models without one.
    """

    name: str
    tokens: Tensor
    encoder_inputs: Mapping[str, Any]

    @property
    def length(self) -> int:
        """The number of tokens of the prompt, or in the cache."""
        return self.tokens.shape[1]

    def call(self, model: nn.Module) -> Call:
        """Return the call of a model that the phase consists of; it does the same each time.

        The cache is filled here, and is as before at the start of each call.

        Args:
            model: in evaluation mode.

        Raises:
            BudgetError: the model returns no cache.
        """
        forward = on_callers_device(model)
        prompt = {**self._inputs(self.tokens), **self.encoder_inputs, **_last_logits(model), "use_cache": True}
        if self.name == PREFILL:
            return lambda: forward(**prompt)
        with torch.no_grad():
            output = forward(**prompt)
        next_inputs = cached_inputs(model, output)
        if not next_inputs:
            raise BudgetError(
                f"keep={{'{DECODE}': ...}} is the time of a token with a cache of keys and values, and "
                f"{type(model).__name__} returns none; give latency, the time of a batch"
            )
        states = [(holder, dict(vars(holder))) for cache in next_inputs.values() for holder in _cache_holders(cache)]
        step = {**self._inputs(self.tokens[:, -1:]), **_encoder_output(output), **next_inputs, "use_cache": True}

        def decode() -> Any:
            for holder, values in states:
                vars(holder).update(values)
            return forward(**step)

        return decode

    def _inputs(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"decoder_input_ids" if self.encoder_inputs else "input_ids": tokens}


def cached_inputs(model: nn.Module, output: Any) -> dict[str, Any]:
    """Return the cache of an output as the argument by which the model takes it for the next token.

    Args:
        model: a model of the transformers library.
        output: what it returned with `use_cache=True`.

    Returns:
        The cache by the argument's name; empty for an output without one.
    """
    caches = [cache for name in CACHES if (cache := getattr(output, name, None)) is not None]
    parameters = inspect.signature(model.forward).parameters
    return {next((name for name in CACHES if name in parameters), CACHES[-1]): caches[0]} if caches else {}


def generation_phase(name: str, model: nn.Module, batch: Batch, length: int | None) -> GenerationPhase:
    """Return a phase of text generation that continues the first row of a batch.

    Args:
        name: "decode_latency" or "prefill_latency".
        model: the model.
        batch: inputs of the model.
        length: the number of tokens, for which those of the row are repeated or left out; None for those of the row.

    Raises:
        BudgetError: the model generates no text from tokens.
    """
    if not can_generate(model):
        raise BudgetError(
            f"keep={{'{name}': ...}} is a time of text generation, and {type(model).__name__} is no model of the "
            "transformers library that generates text (...ForCausalLM, ...ForConditionalGeneration); give latency, the "
            "time of a batch"
        )
    config: Any = model.config
    row = batch.take(torch.tensor([0]))
    inputs = {**dict(zip(inspect.signature(model.forward).parameters, row.args, strict=False)), **row.kwargs}
    has_encoder = bool(getattr(config, "is_encoder_decoder", False))
    tokens = inputs.pop("decoder_input_ids" if has_encoder else "input_ids", None)
    encoder_inputs = {key: value for key, value in inputs.items() if has_encoder and not key.startswith("decoder_")}
    further_keys = [key for key, value in inputs.items() if not has_encoder and _is_further_input(value, tokens)]
    if not isinstance(tokens, Tensor) or tokens.dim() != MATRIX_DIMS or further_keys:
        missing = f"further inputs, {', '.join(further_keys)}" if further_keys else "no matrix of token numbers"
        raise BudgetError(
            f"keep={{'{name}': ...}} is measured with token numbers as the only input of the decoder, and the data "
            f"has {missing}; give latency, the time of a batch"
        )
    length = tokens.shape[1] if length is None else length
    prompt = tokens.repeat(1, -(-length // tokens.shape[1]))[:, :length]
    return GenerationPhase(name, prompt, encoder_inputs)


def check_generation(name: str, model: nn.Module, batch: Batch, length: int | None) -> None:
    """Check that a phase of text generation can be timed, by one run of it.

    Raises:
        BudgetError: the model generates no text from tokens, or can't take as many.
    """
    phase = generation_phase(name, model, batch, length)
    try:
        with isolated_evaluation(model):
            phase.call(model)()
    except (ValueError, TypeError, IndexError, RuntimeError) as failure:
        raise BudgetError(
            f"keep={{'{name}': ...}} can't be measured with {phase.length} tokens: {type(failure).__name__}: "
            f"{str(failure).splitlines()[0] if str(failure) else 'no reason is given'}; give context_length="
        ) from failure


def _is_further_input(value: Any, tokens: Any) -> bool:
    """Return True for an input that is more than an entry for each token (mask, positions, types of tokens)."""
    return value is not None and isinstance(value, Tensor) and value.shape != getattr(tokens, "shape", None)


def _last_logits(model: nn.Module) -> dict[str, int]:
    """Return the keyword by which a model computes the output of the last token alone, where it has one."""
    return {LOGITS: 1} if LOGITS in inspect.signature(model.forward).parameters else {}


def _encoder_output(output: Any) -> dict[str, Any]:
    """Return the encoder's output as an input of the decoder; nothing for models without an encoder."""
    hidden_state = getattr(output, "encoder_last_hidden_state", None)
    if hidden_state is None:
        return {}
    outputs: Any = importlib.import_module("transformers.modeling_outputs")
    return {"encoder_outputs": outputs.BaseModelOutput(last_hidden_state=hidden_state)}


def _cache_holders(cache: Any) -> Iterator[Any]:
    """Yield a cache with all objects in it that hold keys and values."""
    yield cache
    for value in vars(cache).values():
        for member in value if isinstance(value, list | tuple) else [value]:
            if hasattr(member, "update") and hasattr(member, "__dict__") and not isinstance(member, Mapping):
                yield from _cache_holders(member)
