"""Samplers that users define: what has another form than a sampler's is refused by name."""

from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.importance import CoalitionDesign


def no_design(players: int, generator: torch.Generator) -> int:
    return players


def real_members(players: int, generator: torch.Generator) -> CoalitionDesign:
    return CoalitionDesign(torch.rand(4, players, generator=generator), lambda surplus: surplus)


def other_players(players: int, generator: torch.Generator) -> CoalitionDesign:
    return CoalitionDesign(torch.rand(4, players + 1, generator=generator) > 0.5, lambda surplus: surplus)


def shares_of_coalitions(players: int, generator: torch.Generator) -> CoalitionDesign:
    return CoalitionDesign(torch.rand(players + 1, players, generator=generator) > 0.5, lambda surplus: surplus)


def failing_shares(players: int, generator: torch.Generator) -> CoalitionDesign:
    return CoalitionDesign(torch.rand(4, players, generator=generator) > 0.5, lambda surplus: surplus.nothing)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (lambda players: None, "fails for 8 players with TypeError"),
        (no_design, "the sampler no_design returns int; return a CoalitionDesign"),
        (real_members, r"float32 of shape \(4, 8\); give booleans of shape \(coalitions, players\)"),
        (other_players, r"bool of shape \(4, 9\)"),
        (shares_of_coalitions, r"shares of the sampler shares_of_coalitions returns what is float64 of shape \(9, "),
        (failing_shares, "shares of the sampler failing_shares fails with AttributeError"),
    ],
)
def test_a_sampler_of_another_form_is_refused(sampler: Any, message: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    data = torch.randn(16, 6)
    by = sc.Shapley(sampler=sampler, coalitions=50, aggregate="mean")
    with pytest.raises(sc.errors.OptionError, match=message):
        sc.score(sc.trace(model, data), data, by=by, progress=False)
