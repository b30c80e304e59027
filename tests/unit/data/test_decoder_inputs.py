"""Labels of encoder-decoder models: the decoder's tokens are made from them as the library does."""

from typing import Any

import pytest
import torch
from support.transformers_models import tiny_transformer

import secateur as sc
from comparisons import assert_pruned_alike
from expected_warnings import untrained_networks
from secateur.data.conversion import as_batches
from secateur.data.decoder_inputs import with_decoder_tokens
from secateur.errors import DataError

pytestmark = [untrained_networks, pytest.mark.usefixtures("programs_kept")]


def labelled(name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model, and inputs with labels in place of the decoder's tokens."""
    model, batch = tiny_transformer(name)
    labels = batch.pop("decoder_input_ids").clone()
    labels[1::2, -2:] = -100
    model.config.decoder_start_token_id, model.config.pad_token_id = 1, 2
    return model, {**batch, "labels": labels}


@pytest.mark.parametrize("name", ["t5", "whisper"])
def test_the_outputs_are_those_of_the_library(name: str) -> None:
    model, inputs = labelled(name)
    (batch,) = with_decoder_tokens(model, as_batches(inputs))
    with torch.no_grad():
        expected = model(**inputs).logits
        logits = model(**batch.kwargs).logits
    assert torch.equal(logits, expected)
    assert torch.equal(batch.target, inputs["labels"])


@pytest.mark.parametrize("name", ["t5", "whisper"])
def test_a_model_is_pruned_with_labels_alone(name: str) -> None:
    model, inputs = labelled(name)
    (batch,) = with_decoder_tokens(model, as_batches(inputs))
    options: dict[str, Any] = {"kinds": "neurons", "by": "l2", "allocation": "uniform", "progress": False}
    small, other = (
        sc.prune(model, data, {"params": 0.9}, repair="refit", **options)
        for data in (inputs, {**batch.kwargs, "labels": inputs["labels"]})
    )
    states = (result.model.state_dict() for result in (small, other))
    assert all(torch.equal(*pair) for pair in zip(*(state.values() for state in states), strict=True))
    network = sc.trace(model, inputs)
    assert len(sc.score(network, inputs, by="taylor", progress=False).groups) == len(network.groups)


LENGTHS = (6, 4, 6, 2, 4, 1, 6, 4)


def padded_labels(name: str) -> tuple[Any, dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """A model, inputs with labels of several lengths that are padded, and the same examples without padding."""
    model, inputs = labelled(name)
    tokens = torch.randint(3, 64, (8, 6), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor(LENGTHS)
    batches = [
        {
            **{key: value[lengths == length] for key, value in inputs.items()},
            "labels": tokens[lengths == length, :length],
        }
        for length in dict.fromkeys(LENGTHS)
    ]
    return model, {**inputs, "labels": tokens.masked_fill(torch.arange(6) >= lengths[:, None], -100)}, batches


@pytest.mark.parametrize("name", ["t5", "whisper"])
def test_padded_labels_give_the_batches_of_rows_without_padding(name: str) -> None:
    model, inputs, batches = padded_labels(name)
    made_before = {**inputs, **with_decoder_tokens(model, as_batches(inputs))[0].kwargs}  # as collators do
    expected = as_batches(batches, model=model)
    for data in (inputs, made_before):
        for batch, other in zip(as_batches(data, model=model), expected, strict=True):
            assert torch.equal(batch.target, other.target) and batch.kwargs.keys() == other.kwargs.keys()
            assert all(torch.equal(batch.kwargs[key], other.kwargs[key]) for key in other.kwargs)


def test_a_model_pruned_on_padded_labels_is_that_pruned_without_padding() -> None:
    model, inputs, batches = padded_labels("t5")
    options: dict[str, Any] = {"kinds": "neurons", "by": "obs", "allocation": "uniform", "progress": False}
    result, expected = (sc.prune(model, data, {"params": 0.8}, repair="refit", **options) for data in (inputs, batches))
    assert_pruned_alike(result, expected)
    assert result.report.pruned.loss == pytest.approx(expected.report.pruned.loss, rel=1e-3)


def test_labels_that_count_nowhere_keep_the_start_token() -> None:
    model, inputs, _ = padded_labels("t5")
    inputs["labels"][3] = -100
    shapes = [tuple(batch.kwargs["decoder_input_ids"].shape) for batch in as_batches(inputs, model=model)]
    assert shapes == [(3, 6), (3, 4), (2, 1)]


def test_tokens_of_the_user_are_no_padding() -> None:
    model, inputs, _ = padded_labels("t5")
    tokens = {"decoder_input_ids": torch.full((8, 6), 5)}
    (batch,) = as_batches({**inputs, **tokens}, model=model)
    assert torch.equal(batch.kwargs["decoder_input_ids"], tokens["decoder_input_ids"])
    (batch,) = as_batches({**inputs, "decoder_attention_mask": torch.ones(8, 6).long()}, model=model)
    assert batch.kwargs["decoder_input_ids"].shape == (8, 6)


def test_models_shift_labels_in_their_own_way() -> None:
    library = pytest.importorskip("transformers")
    sizes = {f"{side}_{size}": 2 for side in ("encoder", "decoder") for size in ("layers", "attention_heads")}
    widths = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 64}
    model = library.MBartForConditionalGeneration(library.MBartConfig(**sizes, **widths)).eval()
    tokens = torch.randint(3, 64, (4, 6))  # the last of them, the language, begins the decoder's tokens
    (batch,) = as_batches({"input_ids": tokens, "labels": tokens}, model=model)
    assert torch.equal(batch.kwargs["decoder_input_ids"], tokens.roll(1, 1))
    t5, inputs = labelled("t5")
    t5.config.decoder_start_token_id = None
    with pytest.raises(DataError, match=r"T5ForConditionalGeneration can't make .* set it in model.config, or give"):
        as_batches(inputs, model=t5)


def test_other_models_and_inputs_stay_as_they_are() -> None:
    model, batch = tiny_transformer("bert")
    batches = as_batches({**batch, "labels": batch["input_ids"]})
    assert with_decoder_tokens(model, batches) == with_decoder_tokens(None, batches) == batches
    t5, inputs = labelled("t5")
    for decoder_input in ({"decoder_input_ids": inputs["labels"]}, {"decoder_inputs_embeds": torch.randn(8, 6, 16)}):
        (same,) = with_decoder_tokens(t5, as_batches({**inputs, **decoder_input}))
        assert same.kwargs.keys() == {"input_ids", *decoder_input}
    (classes,) = with_decoder_tokens(t5, as_batches({"input_ids": inputs["input_ids"], "labels": torch.arange(8)}))
    assert classes.kwargs.keys() == {"input_ids"}
