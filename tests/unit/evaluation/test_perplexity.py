"""Perplexities: words that count, words that do not fit, and reports that show them."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.batch import Batch
from secateur.evaluation.perplexity import PerplexityMeter, labelled_words, next_words
from secateur.report.figures import measure_rows
from secateur.report.saved_report import saved_report

pytestmark = untrained_networks

WORDS = 11
DRAWS = torch.Generator().manual_seed(3)
TOKENS = [torch.randint(0, WORDS, (8, 12), generator=DRAWS) for _ in range(5)]


class Language(nn.Module):
    """Scores of the next word from the tokens so far, or from all of them."""

    def __init__(self, is_causal: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.up, self.head = nn.Embedding(WORDS, 6), nn.Linear(6, 24), nn.Linear(24, WORDS)
        self.is_causal = is_causal

    def forward(self, tokens: Tensor) -> Any:
        x = self.embed(tokens)
        x = x + (x.cumsum(1) if self.is_causal else x.mean(1, keepdim=True))
        return self.head(self.up(x).relu())


def test_words_that_count_are_weighted_alike_over_batches() -> None:
    scores, words = torch.zeros(2, 3, 4), torch.tensor([[0, 1, -100], [-100, 2, 3]])
    scores[0, 0, 0] = 2.0
    meter = PerplexityMeter(labelled_words, networks=2)
    meter.add(Batch((words,), {}, words), [scores, torch.zeros(2, 3, 4)])
    meter.add(Batch((words,), {}, words[1:, 2:]), [scores[1:, 2:], torch.zeros(1, 1, 4)])
    first = math.log(math.exp(2) + 3) - 2
    assert meter.values() == pytest.approx([math.exp((first + 4 * math.log(4)) / 5), 4])


@pytest.mark.parametrize(
    "words",
    [
        None, torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long),
        torch.zeros(2, 4, dtype=torch.long), torch.full((2, 3), 4), torch.full((2, 3), -1), torch.full((2, 3), -100),
    ],
)  # fmt: skip
def test_words_that_do_not_fit_or_count_give_none(words: Any) -> None:
    meter = PerplexityMeter(labelled_words)
    meter.add(Batch((torch.zeros(2, 3),), {}, words), [torch.zeros(2, 3, 4)])
    assert meter.values() == [None]


def test_what_no_float_holds_is_infinite() -> None:
    scores = torch.tensor([[[0.0, 1e4]]])
    meter = PerplexityMeter(labelled_words)
    meter.add(Batch((scores,), {}, torch.tensor([[0]])), [scores])
    assert meter.values() == [math.inf]


def test_next_words_are_the_tokens_behind_where_there_are_no_labels() -> None:
    tokens, labels = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6]])
    assert next_words(Batch((tokens,), {})).tolist() == [[2, 3]]
    assert next_words(Batch((tokens,), {}, labels)) is labels


@pytest.mark.parametrize("form", ["tokens", "pairs"])
def test_a_report_of_a_language_model_shows_perplexity_and_tokens_per_second(form: str, tmp_path: Path) -> None:
    data = TOKENS if form == "tokens" else [(tokens[:, :-1], tokens[:, 1:]) for tokens in TOKENS]
    test = data[4:]
    model = Language()
    result = sc.prune(model, data[:4], {"macs": 0.8}, by="l2", repair=None, test=test, progress=False)
    for figures, network in ((result.report.dense, model), (result.report.pruned, result.model)):
        with torch.no_grad():
            loss = F.cross_entropy(network(TOKENS[4])[:, :-1].flatten(0, 1), TOKENS[4][:, 1:].flatten())
        assert figures.perplexity == pytest.approx(math.exp(float(loss)), rel=1e-5)
    assert result.report.settings["tokens"] == (96 if form == "tokens" else 88)
    result.save(tmp_path / "small")
    for text in (str(result.report), saved_report(tmp_path / "small", as_json=False)):
        assert f"{result.report.pruned.perplexity:,.2f}" in text and "tokens per second, batch of 8" in text
    assert "perplexity" in {row["measure"] for row in measure_rows(result.report)}


def _loss(output: Tensor, target: Tensor) -> Tensor:
    return (output.softmax(-1) - F.one_hot(target, WORDS)).square().flatten(1).mean(1)


def test_a_loss_of_the_users_own_leaves_the_perplexity_that_of_the_labels() -> None:
    data = [(tokens[:, :-1], tokens[:, 1:]) for tokens in TOKENS]
    options: Any = {"by": "l2", "repair": None, "progress": False}
    reports = [sc.prune(Language(), data, {"macs": 0.8}, loss=loss, **options).report for loss in (None, _loss)]
    assert reports[0].dense.loss != reports[1].dense.loss
    assert reports[0].dense.perplexity == reports[1].dense.perplexity is not None


def test_models_that_read_later_tokens_have_a_perplexity_of_labels_alone() -> None:
    model, options = Language(is_causal=False), {"by": "l2", "repair": None, "progress": False}
    assert sc.prune(model, TOKENS, {"macs": 0.8}, **options).report.dense.perplexity is None
    labelled = sc.prune(model, [(tokens, tokens) for tokens in TOKENS], {"macs": 0.8}, **options).report
    assert labelled.dense.perplexity == pytest.approx(math.exp(labelled.dense.loss), rel=1e-5)


def test_classes_that_are_no_words_have_none() -> None:
    model = nn.Sequential(nn.Embedding(WORDS, 6), nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)).eval()
    data = [(tokens, tokens % 4) for tokens in TOKENS]
    options = {"by": "l2", "repair": None, "progress": False, "loss": lambda output, target: output.mean((1, 2))}
    report = sc.prune(model, data, {"macs": 0.8}, **options).report
    assert report.dense.perplexity is None and "perplexity" not in str(report) and not report.settings["tokens"]
