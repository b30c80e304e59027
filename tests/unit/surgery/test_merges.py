"""Heads that can only be removed with their share of a width: each pair of groups is tried once."""

from unittest.mock import patch

import torch
from torch import nn

import secateur as sc
from secateur.coupling.group import Group
from secateur.coupling.regroup import merge_groups
from secateur.surgery import validate_merges
from secateur.surgery.trial_cut import Failure, TrialCutter
from secateur.surgery.trial_shares import draw_shares
from secateur.surgery.validate_merges import merge_heads_with_width


def test_a_pair_of_groups_is_tried_once_in_all_modules_that_hold_it() -> None:
    """A module holds the pairs of its submodules, too."""
    inner = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 6))
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Sequential(inner, nn.ReLU()), nn.Linear(6, 2)).eval()
    network = sc.trace(model, torch.randn(2, 5))
    failure = Failure("it always fails", "2.0.2", 0)
    pairs: list[tuple[str, str]] = []

    def merging(before: sc.Network, wide: Group, narrow: Group) -> sc.Network:
        pairs.append((wide.name, narrow.name))
        return merge_groups(before, wide, narrow)

    trials = TrialCutter(model)
    with patch.object(validate_merges, "merge_groups", merging), patch.object(trials, "run", return_value=failure):
        assert merge_heads_with_width(trials, network, 0, failure) is None
    assert draw_shares(network, 0).keys() == {"0", "2.0.0", "2.0.2", "2.0.4"}
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {("2.0.0", "2.0.2"), ("2.0.0", "0"), ("2.0.0", "2.0.4"), ("0", "2.0.4"), ("2.0.4", "0")}
