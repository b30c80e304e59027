"""Plain tensors of class scores of each token are compared as those that have the name `logits`."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from secateur.evaluation.token_scores import has_token_scores
from secateur.training import prune_while_training

pytestmark = untrained_networks

WORDS = 11
DRAWS = torch.Generator().manual_seed(3)
TOKENS = [torch.randint(0, WORDS, (8, 12), generator=DRAWS) for _ in range(5)]


class Language(nn.Module):
    """A language model of one feed-forward block."""

    def __init__(self, tied: bool = False, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.positions = nn.Embedding(WORDS, width), nn.Embedding(12, width)
        self.up, self.down, self.norm = nn.Linear(width, 24), nn.Linear(24, width), nn.LayerNorm(width)
        self.head = nn.Linear(width, WORDS, bias=False)
        self.head.weight.data *= 4  # so that classes differ
        if tied:
            self.head.weight = self.embed.weight

    def scores(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.positions(torch.arange(tokens.shape[1]))
        result: Tensor = self.head(self.norm(x + self.down(self.up(x).relu())))
        return result

    def forward(self, tokens: Tensor) -> Any:
        return self.scores(tokens)


class Named(Language):
    def forward(self, tokens: Tensor) -> Any:
        return {"logits": self.scores(tokens)}


class Pair(Language):
    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Any:
        scores = self.scores(tokens)
        return scores, None if targets is None else F.cross_entropy(scores.flatten(0, 1), targets.flatten())


class LastOne(Language):
    def forward(self, tokens: Tensor) -> Any:
        return 30 * torch.tanh(self.scores(tokens)[:, [-1], :] / 30)


class LastUnlessTrained(Language):
    """Scores of all tokens with targets, as in code for training, and else of the last one alone."""

    ignored = -100  # the label for what does not count in the model's own loss

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Any:
        scores = self.scores(tokens)
        if targets is None:
            return scores[:, [-1]], None
        return scores, F.cross_entropy(scores.view(-1, WORDS), targets.reshape(-1), ignore_index=self.ignored)


class States(Language):
    """Hidden states, as many of them as words."""

    def __init__(self) -> None:
        super().__init__(width=WORDS)

    def forward(self, tokens: Tensor) -> Any:
        x = self.embed(tokens)
        return self.norm(x + self.down(self.up(x).relu()))


class TwoHeads(Language):
    """Scores of the words of two vocabularies, and the states that both are computed from."""

    def __init__(self, words: int = 7) -> None:
        super().__init__()
        self.notes, self.second = nn.Embedding(7, 6), nn.Linear(6, words)

    def forward(self, tokens: Tensor) -> Any:
        x = self.embed(tokens) + self.notes(tokens % 7)
        x = self.norm(x + self.down(self.up(x).relu()))
        return self.head(x), self.second(x), x


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.head = nn.Embedding(WORDS, 6), nn.LSTM(6, 9, batch_first=True), nn.Linear(9, WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.head(self.lstm(self.embed(tokens))[0])
        return result


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Language(), True), (Language(tied=True), True), (Pair(), True), (LastOne(), True), (Recurrent(), True),
        (Named(), False), (States(), False), (TwoHeads(), False), (TwoHeads(words=1), True),
        (nn.Sequential(nn.Embedding(WORDS, 6), nn.ReLU(), nn.Linear(6, 4)), False),  # features, or classes of words
        (nn.Sequential(nn.Conv1d(3, 6, 1), nn.ReLU(), nn.Conv1d(6, 4, 1)), False),
    ],
)  # fmt: skip
def test_which_networks_give_scores_of_tokens(model: nn.Module, expected: bool) -> None:
    reads_sequences = any(isinstance(module, nn.Conv1d) for module in model.modules())
    example = torch.randn(2, 3, 5) if reads_sequences else TOKENS[0]
    assert has_token_scores(sc.trace(model, example).program) == expected


class ConvolvedTokens(nn.Module):
    """Features of each token, with the positions, whose number varies, along the last axis."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.up, self.down = nn.Embedding(WORDS, 6), nn.Conv1d(6, 12, 3, padding=1), nn.Conv1d(12, 4, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.down(self.up(self.embed(tokens).transpose(1, 2)).relu())
        return result


def test_numbers_of_positions_that_vary_are_no_classes() -> None:
    data = [tokens[:, :length] for tokens, length in zip(TOKENS, (12, 9, 8, 10, 11), strict=True)]
    network = sc.trace(ConvolvedTokens(), data)
    assert not has_token_scores(network.program)
    assert sc.prune(ConvolvedTokens(), data, {"macs": 0.7}, progress=False).report.pruned.divergence is not None


def test_inputs_that_training_changes_keep_scores_of_tokens() -> None:
    results = [
        sc.prune(
            kind(), TOKENS, {"macs": 0.6}, repair="tune", tuning={"steps": 5, "augment": torch.Tensor.clone},
            progress=False,
        )
        for kind in (Language, Named)
    ]  # fmt: skip
    ours, named = (result.model.state_dict() for result in results)
    assert all(torch.equal(ours[name], named[name]) for name in named)


@pytest.mark.parametrize("has_labels", [True, False])
@pytest.mark.parametrize("plain", [Language, Pair])
def test_a_plain_language_model_is_pruned_like_a_named_one(plain: type[Language], has_labels: bool) -> None:
    data = [(batch[:, :-1], batch[:, 1:]) if has_labels else batch for batch in TOKENS]
    results = [sc.prune(kind(), data, {"macs": 0.6}, progress=False) for kind in (plain, Named)]
    ours, named = (result.model.state_dict() for result in results)
    assert all(torch.equal(ours[name], named[name]) for name in named)
    for figures in ("dense", "pruned"):
        measured = [getattr(result.report, figures) for result in results]
        for name in ("loss", "accuracy", "agreement", "divergence"):
            assert getattr(measured[0], name) == getattr(measured[1], name)
    assert results[0].report.pruned.agreement is not None


@pytest.mark.parametrize("by", ["shapley", "taylor", "integrated-gradients", "leave-one-out"])
def test_criteria_read_the_divergence_of_words(by: str) -> None:
    scores = [
        sc.score(sc.trace(kind(), TOKENS), TOKENS, by=by, only="up", progress=False)["up"].values
        for kind in (Language, Named)
    ]
    assert torch.equal(*scores)


def test_a_loss_of_the_users_own_reads_the_plain_tensor() -> None:
    def loss(output: Any, dense: Any) -> Tensor:
        assert isinstance(output, Tensor) and isinstance(dense, Tensor)
        return (output - dense).square().flatten(1).mean(1)

    assert sc.prune(Language(), TOKENS, {"macs": 0.8}, loss=loss, progress=False).report.pruned.loss > 0


def test_tokens_of_strings_are_read_by_position_and_their_labels_are_the_next_ones() -> None:
    texts, pairs = ["abcdefghijklmnop" * 3, "ponmlkj"], []
    batches = sc.text_batches(lambda text: [ord(letter) % WORDS for letter in text], texts, length=8, batch_size=3)
    for batch in batches:
        after = torch.cat([batch["input_ids"][:, 1:], torch.full_like(batch["input_ids"][:, :1], -100)], 1)
        pairs.append((batch["input_ids"], after))
    ours, expected = (
        sc.prune(Language(), data, {"macs": 0.6}, by="taylor", progress=False) for data in (batches, pairs)
    )
    assert ours.report.pruned.loss == expected.report.pruned.loss
    assert torch.equal(ours.model(TOKENS[0]), expected.model(TOKENS[0]))
    padded = sc.text_batches(lambda text: [ord(letter) % WORDS for letter in text], texts, joined=False, length=12)
    network = sc.trace(Language(), padded)
    assert sc.score(network, padded, by="taylor", progress=False)["up"].values.shape == (24,)


@pytest.mark.parametrize("repeating", [0, 2])  # batches whose masked words happen to be the right ones
def test_labels_of_words_that_are_masked_are_not_shifted(repeating: int) -> None:
    data = [
        {"tokens": tokens, "labels": tokens if number < repeating else tokens.masked_fill(tokens > 2, 5)}
        for number, tokens in enumerate(TOKENS)
    ]
    pairs = [(batch["tokens"], batch["labels"]) for batch in data]
    losses = [
        sc.prune(Language(), form, {"macs": 0.8}, repair=None, progress=False).report.dense.loss
        for form in (data, pairs)
    ]
    assert losses[0] == losses[1]


def test_labels_are_inputs_where_only_they_make_a_model_score_all_tokens() -> None:
    data = [(batch[:, :-1], batch[:, 1:]) for batch in TOKENS]
    results = [sc.prune(kind(), data, {"macs": 0.6}, progress=False) for kind in (LastUnlessTrained, Named)]
    ours, named = (result.model.state_dict() for result in results)
    assert all(torch.equal(ours[name], named[name]) for name in named)
    assert results[0].report.pruned.loss == results[1].report.pruned.loss
    assert results[0].model(TOKENS[0])[0].shape == (8, 1, WORDS)


def test_a_model_that_scores_all_tokens_only_with_targets_is_pruned_by_all_of_them_without_labels() -> None:
    results = [sc.prune(kind(), TOKENS, {"macs": 0.6}, progress=False) for kind in (LastUnlessTrained, Named)]
    ours, named = (result.model.state_dict() for result in results)
    assert all(torch.equal(ours[name], named[name]) for name in named)
    assert results[0].report.pruned.divergence == results[1].report.pruned.divergence
    assert sc.language_report(LastUnlessTrained(), results[0].model, TOKENS, tokens=2).small.perplexity > 1


class OtherIgnoredLabel(LastUnlessTrained):
    """A model whose own loss knows another label for what does not count."""

    ignored = -1


def test_labels_that_do_not_count_are_words_in_the_second_input() -> None:
    texts = ["abcdefghijklmnop" * 12]
    data = sc.text_batches(lambda text: [ord(letter) % WORDS for letter in text], texts, length=8, batch_size=6)
    results = [
        sc.prune(kind(), data, {"macs": 0.6}, by="l2", repair=None, progress=False)
        for kind in (OtherIgnoredLabel, Language)
    ]
    assert results[0].report.pruned.agreement == results[1].report.pruned.agreement
    assert results[0].report.pruned.loss == results[1].report.pruned.loss


@pytest.mark.parametrize("has_labels", [True, False])
@pytest.mark.parametrize("plain", [Language, Pair])
def test_training_while_pruning_reads_plain_scores_like_named_ones(plain: type[Language], has_labels: bool) -> None:
    data = [(batch[:, :-1], batch[:, 1:]) if has_labels else batch for batch in TOKENS]
    options: Any = {"every": 2, "tuning_steps": 2, "units_per_step": 4, "progress": False}
    results = [prune_while_training(kind(), data, {"units": 0.7}, **options) for kind in (plain, Named)]
    ours, named = (result.model.state_dict() for result in results)
    assert all(torch.equal(ours[name], named[name]) for name in named)
    assert results[0].report.pruned.agreement == results[1].report.pruned.agreement is not None
    assert results[0].report.pruned.perplexity == results[1].report.pruned.perplexity is not None
