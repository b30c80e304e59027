"""The printed texts, word for word."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.coupling.effective_macs import effective_macs
from zoo import grow

Golden = Callable[[str, str], None]


@pytest.mark.parametrize("name", ["residual", "encoder fused", "hard-wired", "few groups"])
def test_a_printed_network(name: str, golden: Golden) -> None:
    model, example = grow(name)
    golden(f"network {name}.txt", str(sc.trace(model, example)))


def test_a_plan_and_what_is_reachable(golden: Golden) -> None:
    model, example = grow("residual")
    network = sc.trace(model, example)
    golden("reachable.txt", sc.reachable(network, target="avx2"))
    plan = sc.plan(network, sc.score(network, by="random"), keep={"macs": 0.6})
    golden("plan.txt", str(replace(plan, effective=effective_macs(network, plan.kept, 8))))


def test_scores(golden: Golden) -> None:
    network = sc.trace(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)), torch.ones(2, 2))
    scores = sc.score(network, by="random", seed=5)
    golden("scores.txt", str(scores))
