"""Units that are worth the same: stopping rules end, and greedy removal keeps the order of removal."""

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.importance import leave_one_out
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.stopping import Rule
from secateur.stopping import SelectionConfident, Stable


@pytest.mark.parametrize("rule", [Stable(), SelectionConfident(keep=0.5)])
def test_rules_end_where_all_units_are_dead(rule: Rule) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1.0)
    data = [(torch.randn(40, 4), torch.randint(0, 3, (40,)))]
    by = sc.Shapley(sampler="antithetic", stop=rule)
    scores = sc.score(sc.trace(model, data), data, by=by, progress=False)["0"]
    assert not bool(scores.values.any())
    assert scores.coalitions < 500


def test_units_that_are_removed_later_rank_higher_at_any_scale_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is largest after the first removal, and falls with each of the others."""
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    data = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
    order = torch.tensor([3, 0, 4, 1, 2])

    def loss_increases(game: Game, coalitions: torch.Tensor, microbatch: int) -> torch.Tensor:
        step = 4 - int(coalitions.sum(1)[0])
        is_next = ~coalitions[:, order[step]]
        return torch.where(is_next, 1e9 - 1e8 * step, 2e9)[:, None].double()

    monkeypatch.setattr(leave_one_out, "_loss_increases", loss_increases)
    scores = sc.score(sc.trace(model, data), data, by="greedy", progress=False)["0"].values
    assert torch.equal(scores.argsort(), order)
    assert len(scores.unique()) == 5
