"""`language_report`: perplexity, speed, memory and generated text of two language models."""

import math

import pytest
import torch
from support.transformers_models import tiny_transformer

import secateur as sc
from secateur.errors import OptionError


class Letters:
    def decode(self, tokens: list[int]) -> str:
        return "".join(chr(64 + token) for token in tokens)


def test_the_figures_are_those_of_the_library() -> None:
    model, batch = tiny_transformer("llama")
    small, _ = tiny_transformer("llama")
    for parameter in small.parameters():
        parameter.data *= 1.5
    report = sc.language_report(model, small, batch, tokenizer=Letters(), tokens=4)
    for figures, network in ((report.dense, model), (report.small, small)):
        with torch.no_grad():
            loss = network(**batch, labels=batch["input_ids"]).loss
            generated = network.generate(batch["input_ids"][:1], max_new_tokens=4, do_sample=False, eos_token_id=None)
        assert figures.perplexity == pytest.approx(math.exp(float(loss)), rel=1e-5)
        assert figures.sample == Letters().decode(generated[0, 10:].tolist())
        assert figures.cache_bytes == 2 * 2 * 2 * 8 * 4  # keys and values, layers, key-value heads, width, float32
        assert figures.prefill > 0 and figures.decoding > 0
    assert report.dense.bytes == sum(tensor.numel() * 4 for tensor in (*model.parameters(), *model.buffers()))
    assert "perplexity" in str(report) and f"small:  {report.small.sample}" in str(report)
    halved = {**batch, "labels": batch["input_ids"].clone()}
    halved["labels"][:, :5] = -100  # what does not count
    with torch.no_grad():
        expected = math.exp(float(model(**halved).loss))
    assert sc.language_report(model, model, halved, tokens=1).dense.perplexity == pytest.approx(expected, rel=1e-5)


def test_other_models_are_refused() -> None:
    model, batch = tiny_transformer("bert")
    with pytest.raises(OptionError, match="no causal language model"):
        sc.language_report(model, model, batch)
