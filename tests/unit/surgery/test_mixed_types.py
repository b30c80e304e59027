"""Models with parameters of several types, as the transformers library loads them, are saved in these types."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.transformers_models import tiny_transformer

import secateur as sc
from expected_warnings import untrained_networks


@pytest.mark.parametrize("name", ["t5", "llama"])
@untrained_networks
def test_save_pretrained_keeps_the_type_of_each_tensor(name: str, tmp_path: Path) -> None:
    dense, batch = tiny_transformer(name)
    dense.save_pretrained(tmp_path / "dense")
    model: Any = type(dense).from_pretrained(tmp_path / "dense", dtype=torch.float16).eval()
    types = {key: parameter.dtype for key, parameter in model.named_parameters()}
    assert (torch.float32 in types.values()) == (name == "t5")  # the library keeps some layers of T5 in float32
    options: dict[str, Any] = {"kinds": "neurons", "layout": "config", "allocation": "uniform", "progress": False}
    result = sc.prune(model, batch, {"params": 0.9}, by="l2", repair=None, **options)
    assert {key: parameter.dtype for key, parameter in result.model.named_parameters()} == types
    result.save_pretrained(tmp_path / "small")
    small: Any = type(dense).from_pretrained(tmp_path / "small").eval()
    assert {key: parameter.dtype for key, parameter in small.named_parameters()} == types
    with torch.no_grad():
        assert torch.equal(small(**batch).logits, result.model(**batch).logits)
