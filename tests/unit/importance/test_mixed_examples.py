"""Scores of units that are read where the examples of a batch are mixed, as in layers of experts."""

import pytest
import torch
from support.transformers_models import tiny_transformer
from torch import Tensor, nn

import secateur as sc
from secateur.errors import DataError


class SortedTokens(nn.Module):
    """A feed-forward layer that reads the tokens of all examples in the order of a score."""

    def __init__(self, sorts: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.router, self.up, self.down = nn.Linear(6, 1), nn.Linear(6, 8), nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)
        self.sorts = sorts

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        order = self.router(tokens)[:, 0].argsort() if self.sorts else torch.arange(len(tokens))
        result = self.down(self.up(tokens[order]).relu())
        return self.head((result[order.argsort()] + tokens).view(x.shape).mean(1))


DRAWS = torch.Generator().manual_seed(1)
DATA = [(torch.randn(count, 5, 6, generator=DRAWS), torch.randint(0, 3, (count,), generator=DRAWS)) for count in (4, 7)]


@pytest.mark.parametrize("by", ["apoz", "taylor"])
def test_scores_of_mixed_tokens_are_those_of_the_same_tokens_in_order(by: str) -> None:
    mixed, ordered = (
        sc.score(sc.trace(SortedTokens(sorts), DATA, kinds="neurons"), DATA, by=by, progress=False)["up"]
        for sorts in (True, False)
    )
    torch.testing.assert_close(mixed.values, ordered.values, rtol=1e-5, atol=1e-7)


def test_mixed_examples_of_a_fixed_batch_are_refused() -> None:
    model = torch.export.export(SortedTokens(True), (DATA[0][0],)).module()
    with pytest.raises(DataError, match="takes no single examples"):
        sc.score(sc.trace(model, DATA[:1]), DATA[:1], by="apoz", progress=False)


def test_experts_of_a_language_model_are_pruned_by_default() -> None:
    model, inputs = tiny_transformer("mixtral")
    scores = sc.score(sc.trace(model, inputs), inputs, by="obs", progress=False)
    assert bool(torch.isfinite(scores["model.layers.0.mlp.gate"].values).all())
    assert float(scores["model.layers.0.mlp.experts"].values.min()) > 0
