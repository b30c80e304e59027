"""Scores are continued with the settings that they were sampled with alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.coupling.network import Network
from secateur.errors import DataError


def traced() -> tuple[Network, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    data = [(torch.randn(40, 4), torch.randint(0, 3, (40,)))]
    return sc.trace(model, data), data


def smoothed(smoothing: float) -> nn.Module:
    return nn.CrossEntropyLoss(reduction="none", label_smoothing=smoothing)


def weighted(weight: float) -> Any:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return weight * output[:, 0]

    return loss


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (None, smoothed(0.9)),
        (smoothed(0.0), smoothed(0.9)),
        (weighted(1.0), weighted(2.0)),
        (lambda output, target: output[:, 0], lambda output, target: output[:, 1]),
    ],
)
def test_samples_of_another_loss_are_not_continued(before: Any, now: Any) -> None:
    network, data = traced()
    options: Any = {"by": sc.Shapley(sampler="antithetic", coalitions=50), "progress": False}
    scores = sc.score(network, data, loss=before, **options)
    again = sc.score(network, data, loss=before, resume=scores, **options)
    assert torch.equal(again["0"].values, scores["0"].values)
    with pytest.raises(DataError, match="other options"):
        sc.score(network, data, loss=now, resume=scores, **options)


@pytest.mark.parametrize("by", ["owen", "expected-gradients"])
def test_shares_in_the_game_of_all_groups_are_not_those_of_one(by: str) -> None:
    network, data = traced()
    scores = sc.score(network, data, by=by, coalitions=50, progress=False)
    with pytest.raises(DataError, match=r"the game of other groups \(2\)"):
        sc.score(network, data, by=by, only="0", resume=scores, progress=False)


def test_a_checkpoint_of_scores_without_samples_is_written_again(tmp_path: Path) -> None:
    network, data = traced()
    path = tmp_path / "scores.safetensors"
    first, again = (sc.score(network, data, by="l2", checkpoint=path, progress=False) for _ in range(2))
    assert torch.equal(first["0"].values, again["0"].values)
    with pytest.raises(DataError, match="of another network"):
        sc.score(network, data, by="shapley", checkpoint=path, progress=False)
