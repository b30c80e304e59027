"""The order in which units are removed, by hand."""

import torch
from torch import nn

import secateur as sc
from secateur.training.removal_order import removal_order


def test_sets_of_a_group_keep_their_order_whatever_their_sums() -> None:
    """A first, smaller set of negative scores has the larger sum, and is removed first all the same."""
    network = sc.trace(nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 2)).eval(), torch.ones(1, 2))
    scores = {"0": torch.tensor([-0.9, 5.0, -1.0, 6.0, -0.9])}
    assert removal_order(network.groups, torch.ones(6, dtype=torch.bool), scores, 2, 1) == [[2], [0, 4]]


def test_removed_units_are_not_removed_again() -> None:
    network = sc.trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), torch.ones(1, 2))
    alive = torch.tensor([True, False, True, True])
    assert removal_order(network.groups, alive, {"0": torch.tensor([2.0, 0.0, 1.0])}, 1, 1) == [[2]]
