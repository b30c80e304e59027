"""Padded sequences: padded tokens count as no examples, and labels of causal models are the next tokens."""

from typing import Any

import pytest
import torch
from support.transformers_models import VOCABULARY, tiny_transformer
from torch import Tensor
from torch.nn import functional as F

import secateur as sc
from comparisons import assert_pruned_alike
from expected_warnings import untrained_networks
from secateur.data.conversion import as_batches
from secateur.data.next_tokens import is_causal_language_model

LENGTHS = (9, 5, 9, 3, 5, 5, 7, 9)


def padded(lengths: tuple[int, ...] = LENGTHS, on_the_left: bool = False, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    positions = torch.arange(max(lengths))
    starts = torch.tensor([max(lengths) - length if on_the_left else 0 for length in lengths])[:, None]
    ends = torch.tensor([max(lengths) if on_the_left else length for length in lengths])[:, None]
    mask = ((positions >= starts) & (positions < ends)).long()
    return {"input_ids": tokens * mask, "attention_mask": mask}


def rows(batch: dict[str, Tensor]) -> list[dict[str, Any]]:
    """The same examples as lists of their tokens alone."""
    present = batch["attention_mask"].bool()
    pairs = zip(batch["input_ids"], present, strict=True)
    return [{"input_ids": ids[mask].tolist(), "attention_mask": [1] * int(mask.sum())} for ids, mask in pairs]


@pytest.mark.parametrize("on_the_left", [False, True])
def test_rows_lose_their_padding_and_join_others_of_their_length(on_the_left: bool) -> None:
    batch = padded((*LENGTHS[1:], LENGTHS[0]), on_the_left)
    targets = torch.where(batch["attention_mask"] == 1, batch["input_ids"] + 1, -100)
    batches = as_batches({**batch, "labels": targets, "kind": torch.arange(8)})
    assert sorted(tuple(one.kwargs["input_ids"].shape) for one in batches) == [(1, 3), (1, 7), (3, 5), (3, 9)]
    assert batches[0].kwargs["input_ids"].shape[1] == 9  # the longest comes first: it is traced
    assert all(bool(one.kwargs["attention_mask"].all()) for one in batches)
    assert all(torch.equal(one.target, one.kwargs["input_ids"] + 1) for one in batches)
    assert sorted(int(kind) for one in batches for kind in one.kwargs["kind"]) == list(range(8))


def test_masks_that_are_no_padding_stay() -> None:
    batch = padded()
    holes = {**batch, "attention_mask": batch["attention_mask"].clone()}
    holes["attention_mask"][0, 4] = 0
    for same in (holes, {**batch, "attention_mask": torch.ones(8, 9)}, {**batch, "attention_mask": torch.zeros(8, 9)}):
        (only,) = as_batches(same)
        assert only.kwargs["input_ids"].shape == (8, 9)


def test_decoders_have_their_own_mask() -> None:
    encoder, decoder = padded(), padded((2, 4, 2, 4, 2, 4, 2, 4), seed=1)
    inputs = {**encoder, "decoder_input_ids": decoder["input_ids"], "decoder_attention_mask": decoder["attention_mask"]}
    batches = as_batches({**inputs, "labels": decoder["input_ids"]}, title="T5ForConditionalGeneration")
    for batch in batches:
        assert bool(batch.kwargs["decoder_attention_mask"].all()) and bool(batch.kwargs["attention_mask"].all())
        assert torch.equal(batch.target, batch.kwargs["decoder_input_ids"])  # not shifted
    assert sum(batch.size or 0 for batch in batches) == 8


@pytest.mark.parametrize("name", ["bert", "gpt2"])
@untrained_networks
def test_a_network_pruned_on_padded_rows_is_that_pruned_without_padding(name: str) -> None:
    model, _ = tiny_transformer(name)
    batch = padded(on_the_left=name == "gpt2")
    options: dict[str, Any] = {"by": "obs", "repair": "refit", "allocation": "uniform", "progress": False}
    small, other = (sc.prune(model, data, {"params": 0.8}, kinds="neurons", **options) for data in (batch, rows(batch)))
    assert_pruned_alike(small, other)
    assert small.report.pruned.divergence == pytest.approx(other.report.pruned.divergence, rel=1e-3)


def test_labels_of_a_causal_model_are_the_next_tokens() -> None:
    model, batch = tiny_transformer("gpt2")
    labels = batch["input_ids"].clone()
    labels[:, :3] = -100  # a prompt, which does not count
    result = sc.prune(
        model, {**batch, "labels": labels}, {"params": 0.9}, by="l2", ablation="zero", repair=None,
        allocation="uniform", progress=False,
    )  # fmt: skip
    with torch.no_grad():
        logits = model(**batch).logits
        expected = model(**batch, labels=labels).loss  # the library shifts the labels itself
    assert result.report.dense.loss == pytest.approx(float(expected), rel=1e-5)
    hits = (logits.argmax(-1)[:, 2:-1] == labels[:, 3:]).double().mean()
    assert result.report.dense.accuracy == pytest.approx(float(hits))
    aligned = sc.prune(  # targets that are given as such are not shifted
        model, [(batch, labels)], {"params": 0.9}, by="l2", ablation="zero", repair=None, allocation="uniform",
        progress=False,
    )  # fmt: skip
    unshifted = F.cross_entropy(logits.transpose(1, 2), labels)
    assert aligned.report.dense.loss == pytest.approx(float(unshifted), rel=1e-5)


@pytest.mark.parametrize(
    ("title", "is_causal"),
    [("GPT2LMHeadModel", True), ("Qwen2ForCausalLM", True), ("T5ForConditionalGeneration", False),
     ("XLMWithLMHeadModel", False), ("XLNetLMHeadModel", False), ("BertForMaskedLM", False)],
)  # fmt: skip
def test_causal_models_are_known_by_their_class(title: str, is_causal: bool) -> None:
    assert is_causal_language_model(title) == is_causal
