"""Groups that lose units together as one group: its members, its steps, and the plan for the groups themselves."""

from dataclasses import replace

import torch
from torch import nn

import secateur as sc
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
