"""`language_report`: perplexity, speed, memory and generated text of two language models."""

import math

import pytest
import torch
from support.transformers_models import tiny_transformer
from transformers import GPT2Config, GPT2LMHeadModel

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


class OwnModel(torch.nn.Module):
    """A language model of a user's own, without a cache, that takes at most as many tokens as a row has."""

    def __init__(self, is_causal: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.mix, self.head = torch.nn.Embedding(9, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 9)
        self.is_causal = is_causal

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
        assert tokens.shape[1] <= 10
        x = self.embed(tokens)
        means = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None] if self.is_causal else x.mean(1, keepdim=True)
        return self.head(self.mix(x + means).relu()), None


def test_a_model_of_the_users_own_generates_without_a_cache() -> None:
    model = OwnModel()
    tokens = torch.randint(0, 9, (4, 10), generator=torch.Generator().manual_seed(1))
    report = sc.language_report(model, model, {"input_ids": tokens}, tokenizer=Letters(), tokens=4)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(tokens)[0][:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        text = tokens[:1, :7]
        for _ in range(4):
            text = torch.cat([text, model(text)[0][:, -1:].argmax(-1)], 1)
    assert report.dense.perplexity == pytest.approx(math.exp(float(loss)), rel=1e-5)
    assert (report.prompt, report.dense.sample) == tuple(
        map(Letters().decode, (text[0, :7].tolist(), text[0, 7:].tolist()))
    )
    assert report.dense.cache_bytes == 0 and report.dense.decoding > 0
    assert sc.language_report(model, model, tokens, tokens=20).dense.decoding > 0  # no more than the row has


@pytest.mark.parametrize(("tokens", "prompt"), [(4, 13), (16, 1), (20, 1)])
def test_a_model_with_a_table_of_positions_generates_the_end_of_a_full_row(tokens: int, prompt: int) -> None:
    config = GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=2)
    model = GPT2LMHeadModel(config).eval()
    row = torch.randint(0, 20, (2, 16), generator=torch.Generator().manual_seed(1))
    report = sc.language_report(model, model, {"input_ids": row}, tokenizer=Letters(), tokens=tokens)
    assert report.prompt == Letters().decode(row[0, :prompt].tolist())
    assert len(report.small.sample) == min(tokens, 16)


def test_at_least_one_token_is_generated() -> None:
    model, batch = tiny_transformer("llama")
    with pytest.raises(OptionError, match="tokens=0"):
        sc.language_report(model, model, batch, tokens=0)


def test_a_model_that_reads_later_tokens_is_refused() -> None:
    model = OwnModel(is_causal=False)
    with pytest.raises(OptionError, match="OwnModel is no causal language model"):
        sc.language_report(model, model, torch.randint(0, 9, (4, 10)))


def test_other_models_are_refused() -> None:
    model, batch = tiny_transformer("bert")
    with pytest.raises(OptionError, match="no causal language model"):
        sc.language_report(model, model, batch)
