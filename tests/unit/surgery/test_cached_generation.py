"""Cut language models compute with a cache what they compute without: windows, rotary tables, tied embeddings."""

from typing import Any

import pytest
import torch
from support.transformers_models import tiny_transformer
from torch import Tensor

import secateur as sc
from secateur.evaluation.generation import cached_inputs

START = 7


def stepwise_logits(model: Any, name: str, tokens: Tensor) -> Tensor:
    """Compute logits one token after another, with a cache."""
    is_seq2seq = name == "t5"
    key = "decoder_input_ids" if is_seq2seq else "input_ids"
    output = model(**({"input_ids": tokens} if is_seq2seq else {}), **{key: tokens[:, :START]}, use_cache=True)
    encoded = {"encoder_outputs": (output.encoder_last_hidden_state,)} if is_seq2seq else {}
    logits = [output.logits]
    for position in range(START, tokens.shape[1]):
        step = {key: tokens[:, position : position + 1], **cached_inputs(model, output)}
        output = model(**encoded, **step, use_cache=True)
        logits.append(output.logits)
    return torch.cat(logits, 1)


@pytest.mark.parametrize("name", ["llama", "gemma", "qwen", "gpt2", "t5"])
def test_a_cut_model_computes_with_its_cache_as_without(name: str) -> None:
    model, batch = tiny_transformer(name, 3)
    for parameter in model.parameters():
        parameter.data *= 3  # so that attention counts
    network = sc.trace(model, batch, kinds=("neurons", "residual", "heads", "blocks"))
    groups = [group.name for group in network.groups if not group.block_paths]
    scores = sc.score(network, by="l2", ablation="zero", only=groups)
    paths = [path for group in network.groups for path in group.block_paths]
    dropped = paths[:1] if name != "t5" else []  # the first, whose position the cache's length is read at
    small = sc.cut(model, sc.plan(network, scores, {"units": 0.7}, dropped=dropped))
    tokens = batch["input_ids"]
    with torch.no_grad():
        whole = {"decoder_input_ids": tokens} if name == "t5" else {}
        expected = small(input_ids=tokens, **whole).logits
        torch.testing.assert_close(stepwise_logits(small, name, tokens), expected, rtol=1e-3, atol=1e-4)
        generated = [
            small.generate(tokens, max_new_tokens=4, do_sample=False, use_cache=cached) for cached in (True, False)
        ]
    assert torch.equal(*generated)
    if model.config.tie_word_embeddings:
        assert small.get_input_embeddings().weight is small.get_output_embeddings().weight
