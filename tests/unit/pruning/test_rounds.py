"""Scores in rounds keep the order of what went before, and end where nothing more can go."""

import pytest
import torch

import secateur as sc
from exact_scores import exact_scores
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur.pruning.rounds import merge_scores

pytestmark = untrained_networks


def test_scores_in_rounds_keep_their_order() -> None:
    network = sc.trace(linear_stack(6, 8, 3), torch.randn(2, 6))
    first = exact_scores({"0": [3.0, 1, 2, 9, 8, 7, 6, 5]})
    first_plan = sc.plan(network, first, {"units": 0.75})
    later = exact_scores({"0": [5.0, 4, 3, 2, 1, 0]})
    order = merge_scores(first, first_plan, later)["0"].values.argsort(stable=True).tolist()
    assert order[:2] == [1, 2]
    assert order[2:] == [7, 6, 5, 4, 3, 0]


def test_pruning_in_rounds() -> None:
    model, x = linear_stack(6, 24, 24, 3), torch.randn(200, 6)
    result = sc.prune(model, x, {"macs": 0.4}, rounds=3, progress=False)
    assert result.plan.cost.macs <= 0.4 * result.plan.dense.macs
    assert "in rounds" in result.scores.note
    for rounds, keep in ((0, {"macs": 0.5}), (2, {"loss": 0.1})):
        with pytest.raises(sc.SecateurError, match=r"rounds="):
            sc.prune(model, x, keep, rounds=rounds, progress=False)


def test_rounds_until_a_group_is_down_to_one_unit() -> None:
    result = sc.prune(linear_stack(6, 8, 2, 3), torch.randn(60, 6), {"units": 0.4}, by="l2", rounds=3, progress=False)
    assert all(len(kept) >= 1 for kept in result.plan.kept.values())
