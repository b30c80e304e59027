"""Groups that lose units together as one group: its members, its steps, and the plan for the groups themselves."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from exact_scores import exact_scores
from secateur.allocation.tied_groups import tie_groups
from secateur.coupling.config_layout import ConfigLayout, TiedGroups


def tied_network() -> sc.Network:
    """Groups of 4, 8 and 6 units, of which the first two lose one and two units at a time."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)
    ).eval()
    network = sc.trace(model, torch.randn(2, 3))
    return replace(network, layout=ConfigLayout((TiedGroups(("0", "2"), 4, {"width": 4}),)))


def test_a_tie_is_one_group_whose_units_are_steps_and_frozen_entries_have_none() -> None:
    network = tied_network()
    tied = tie_groups(network, sc.score(network, by="l2"))
    assert [(group.name, group.size, group.offset) for group in tied.network.groups] == [("0", 4, 0), ("4", 6, 4)]
    assert {name: steps.bincount().tolist() for name, steps in tied.steps.items()} == {"0": [1] * 4, "2": [2] * 4}
    units = {(member.tensor, member.axis): member.units for member in tied.network.members}
    assert torch.equal(units["2.weight", 0], tied.steps["2"])
    assert torch.equal(units["2.weight", 1], tied.steps["0"])
    assert units["4.weight", 0].tolist() == list(range(4, 10))
    assert ("6.weight", 0) not in units  # the outputs have no units, before as after
    (last,) = [consumer for consumer in tied.network.consumers if consumer.fold and consumer.fold.weight == "6.weight"]
    assert last.fold is not None
    assert last.fold.outputs.tolist() == [-1, -1]


def test_a_plan_for_ties_keeps_of_each_group_the_units_of_the_kept_steps() -> None:
    network = tied_network()
    scores = sc.score(network, by="l2")
    tied = tie_groups(network, scores)
    plan = sc.plan(network, scores, keep={"units": 0.5})
    assert len(plan.kept["2"]) == 2 * len(plan.kept["0"])
    best = scores["2"].values.argsort(descending=True)[: len(plan.kept["2"])].sort().values
    assert torch.equal(plan.kept["2"], best)
    assert torch.allclose(tied.scores["0"].values.sum(), scores["0"].values.sum() + scores["2"].values.sum())


@pytest.mark.parametrize("keep", [0.9, 0.8, 0.6, 0.4])
@pytest.mark.parametrize("options", [{"allocation": "uniform"}, {"data": torch.randn(16, 3)}])
def test_a_budget_is_used_up_by_steps_of_different_costs(keep: float, options: dict[str, Any]) -> None:
    network = tied_network()
    plan = sc.plan(network, sc.score(network, by="l2"), keep={"params": keep}, **options)
    counts = {name: len(units) for name, units in plan.kept.items()}
    for larger in ({"0": 1, "2": 2}, {"4": 1}):
        more = {name: count + larger.get(name, 0) for name, count in counts.items()}
        kept = {name: torch.arange(min(count, network[name].size)) for name, count in more.items()}
        is_whole = all(counts[name] == network[name].size for name in larger)
        assert is_whole or network.cost(kept).params > keep * network.cost().params


def test_losses_of_a_step_are_those_at_its_end() -> None:
    """Scores by "obs" are accumulated: added up over the units of a step, they would count the first of them twice."""
    network = tied_network()
    losses = {"0": [1.0, 2, 4, 8], "2": [1.0, 2, 3, 4, 5, 6, 7, 8], "4": [1.0] * 6}
    tied = tie_groups(network, exact_scores(losses, "obs"))
    assert tied.scores["0"].values.tolist() == [1 + 2, 2 + 4, 4 + 6, 8 + 8]
    sums = tie_groups(network, exact_scores(losses))
    assert sums.scores["0"].values.tolist() == [1 + 3, 2 + 7, 4 + 11, 8 + 15]


def test_a_number_of_units_is_that_of_the_groups_themselves() -> None:
    network = tied_network()  # 18 units
    plan = sc.plan(network, sc.score(network, by="l2"), keep={"units": 9})
    assert {name: len(units) for name, units in plan.kept.items()} == {"0": 2, "2": 4, "4": 3}
    assert plan.keep == {"units": 9}
