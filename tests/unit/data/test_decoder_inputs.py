"""Labels of encoder-decoder models: the decoder's tokens are made from them as the library does."""

from typing import Any

import pytest
import torch
from support.transformers_models import tiny_transformer

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.conversion import as_batches
from secateur.data.decoder_inputs import with_decoder_tokens

pytestmark = untrained_networks


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
