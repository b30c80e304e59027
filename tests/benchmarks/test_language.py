"""The benchmark of language models: every method prunes a small Llama within the budget, and repairs it."""

from pathlib import Path

import pytest
import torch
from language import peers
from language.methods import METHODS, prune, score
from language.peers import whole_blocks
from language.subject import LanguageSubject

from expected_warnings import untrained_networks

pytestmark = untrained_networks

transformers = pytest.importorskip("transformers")

ALIKE = "secateur, equal shares", "secateur, by loss"  # "secateur" with another allocation


@pytest.fixture(scope="module")
def subject() -> LanguageSubject:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(num_hidden_layers=4, vocab_size=50, use_cache=False, **sizes)
    ).eval()
    tokens = torch.randint(0, 50, (12, 16))
    return LanguageSubject(model, [{"input_ids": batch} for batch in tokens.split(4)], torch.randint(0, 50, (2, 16)))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ALIKE])
def test_a_method_meets_the_budget(
    name: str, subject: LanguageSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "FIRST_KEPT", 1)
    monkeypatch.setattr(peers, "LAST_KEPT", 0)
    file = tmp_path / "scores"
    scored = score(METHODS[name], subject, file)
    untuned, repaired = prune(METHODS[name], subject, 0.25, file)
    assert 0.2 < untuned["removed"] < 0.35
    assert repaired["removed"] == untuned["removed"]
    assert repaired["repair"].startswith("refit")
    assert scored["score_seconds"] > 0 < untuned["tokens_per_second"]
    assert 10 < repaired["perplexity"] < 1000


def test_llm_pruner_leaves_the_first_and_last_blocks_whole(
    subject: LanguageSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "FIRST_KEPT", 2)
    monkeypatch.setattr(peers, "LAST_KEPT", 1)
    assert whole_blocks(subject) == [f"model.layers.{number}.*" for number in (0, 1, 3)]
