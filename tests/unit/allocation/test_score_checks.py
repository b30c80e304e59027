"""Scores are of the network that is planned for, weights included."""

import copy
import dataclasses
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import secateur as sc

X = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
OTHER_WEIGHTS = "computed with other weights than Sequential has now"


def model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()


def scored(network: nn.Module) -> sc.Scores:
    return sc.score(sc.trace(network, X[:2]), X, by="apoz", progress=False)


def trained(network: nn.Sequential) -> nn.Sequential:
    """A copy after one step of training."""
    network = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    network(X).square().mean().backward()
    optimizer.step()
    return network


def test_scores_of_other_weights_are_used_with_a_warning(tmp_path: Path) -> None:
    scores, other = scored(model()), trained(model())
    scores.save(tmp_path / "scores.safetensors")
    for used_scores in (scores, sc.Scores.load(tmp_path / "scores.safetensors")):
        with pytest.warns(UserWarning, match=OTHER_WEIGHTS):
            sc.plan(sc.trace(other, X[:2]), used_scores, {"units": 0.5})
        with pytest.warns(UserWarning, match=OTHER_WEIGHTS):
            sc.prune(other, X, {"units": 0.5}, scores=used_scores, repair=(), progress=False)


def test_scores_of_these_weights_and_of_files_without_a_digest_are_used_silently() -> None:
    scores, dense = scored(model()), model()
    without_digest = sc.Scores(scores.groups, scores.by, scores.seed, scores.means, scores.note, scores.of)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sc.plan(sc.trace(dense, X[:3]), scores, {"units": 0.5})
        sc.plan(sc.trace(dense, X[:2], as_program=True), scores, {"units": 0.5})
        sc.prune(dense, X, {"units": 0.5}, scores=scores, repair=(), progress=False)
        sc.plan(sc.trace(trained(dense), X[:2]), without_digest, {"units": 0.5})


def test_scores_of_a_running_statistic_that_moved_are_of_other_weights() -> None:
    scores, other = scored(model()), model()
    other.train()(X)
    with pytest.warns(UserWarning, match=OTHER_WEIGHTS):
        sc.plan(sc.trace(other.eval(), X[:2]), scores, {"units": 0.5})


def test_scores_of_one_entry_that_changed_are_of_other_weights() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(4, 1000), nn.ReLU(), nn.Linear(1000, 3)).eval()
    scores, other = sc.score(sc.trace(dense, X[:2]), by="l2"), copy.deepcopy(dense)
    with torch.no_grad():
        other[0].weight[300, 1] += 0.1
    with pytest.warns(UserWarning, match=OTHER_WEIGHTS):
        sc.plan(sc.trace(other, X[:2]), scores, {"units": 0.5})
    earlier = dataclasses.replace(scores, weights="0123456789abcdef")  # as version 0.11 wrote it, of some entries
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sc.plan(sc.trace(other, X[:2]), earlier, {"units": 0.5})


def test_scores_in_rounds_are_those_of_the_dense_network() -> None:
    dense = model()
    result = sc.prune(dense, X, {"units": 0.5}, by="apoz", rounds=2, repair=(), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sc.plan(sc.trace(dense, X[:2]), result.scores, {"units": 0.5})
