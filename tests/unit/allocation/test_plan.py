"""Budgets: what is kept, in which order, and what can't be met."""

import pytest
import torch
from torch import nn

import secateur as sc
from exact_scores import exact_scores
from zoo import grow


@pytest.fixture
def network() -> sc.Network:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))
    return sc.trace(model, torch.randn(2, 4))


def test_the_lowest_scores_go_first(network: sc.Network) -> None:
    scores = exact_scores({"0": torch.arange(12).flip(0), "2": torch.tensor([5, 1, 4, 2, 8, 7, 6, 3])})
    plan = sc.plan(network, scores, keep={"units": 0.5})
    assert plan.kept["0"].tolist() == [0, 1, 2, 3, 4, 5]
    assert plan.kept["2"].tolist() == [0, 4, 5, 6]


def test_uniform_takes_the_same_share_and_global_the_lowest_of_all(network: sc.Network) -> None:
    scores = exact_scores({"0": torch.tensor([0.1] * 11 + [9.0]), "2": torch.full((8,), 3.0)})
    uniform = sc.plan(network, scores, keep={"units": 0.5})
    assert [len(uniform.kept[name]) for name in ("0", "2")] == [6, 4]
    ranked = sc.plan(network, scores, keep={"units": 0.5}, allocation="global")
    assert [len(ranked.kept[name]) for name in ("0", "2")] == [2, 8]
    assert ranked.kept["0"].tolist() == [10, 11]


def test_global_normalises_each_group(network: sc.Network) -> None:
    """Scores a thousand times as large in one group change nothing."""
    values = {"0": torch.rand(12), "2": torch.rand(8)}
    plain = sc.plan(network, exact_scores(values), keep={"macs": 0.4}, allocation="global")
    scaled = sc.plan(
        network, exact_scores({"0": values["0"] * 1000, "2": values["2"]}), keep={"macs": 0.4}, allocation="global"
    )
    assert all(torch.equal(plain.kept[name], scaled.kept[name]) for name in plain.kept)


def test_raw_takes_the_lowest_scores_of_all_as_they_are(network: sc.Network) -> None:
    values = {"0": torch.rand(12) * 1000, "2": torch.rand(8)}
    plan = sc.plan(network, exact_scores(values), keep={"units": 0.65}, allocation="raw")
    both = torch.cat([values["0"], values["2"]])
    gone = set(both.argsort()[:7].tolist())
    kept = {*plan.kept["0"].tolist(), *(12 + plan.kept["2"]).tolist()}
    assert kept == set(range(20)) - gone


@pytest.mark.parametrize(("round_to", "floor"), [(4, 1), (1, 3), (1, 0.5), (3, 2)])
def test_multiples_and_floors(network: sc.Network, round_to: int, floor: float) -> None:
    scores = exact_scores({"0": torch.rand(12), "2": torch.rand(8)})
    with pytest.raises(sc.SecateurError, match="smallest reachable is units 0") as refused:
        sc.plan(network, scores, keep={"units": 1e-6}, round_to=round_to, floor=floor)
    least = float(str(refused.value).split("units ")[1].split(" ")[0])
    plan = sc.plan(network, scores, keep={"units": least}, round_to=round_to, floor=floor)
    for name, size in (("0", 12), ("2", 8)):
        count = len(plan.kept[name])
        assert count % round_to == 0 or count == size
        assert count >= (floor if floor >= 1 else floor * size)


def test_several_budgets_are_all_met(network: sc.Network) -> None:
    plan = sc.plan(network, exact_scores({"0": torch.rand(12), "2": torch.rand(8)}), keep={"macs": 0.6, "params": 0.4})
    assert plan.cost.macs <= 0.6 * plan.dense.macs
    assert plan.cost.params <= 0.4 * plan.dense.params


def test_groups_without_scores_stay_whole(network: sc.Network) -> None:
    plan = sc.plan(network, exact_scores({"2": torch.rand(8)}), keep={"params": 0.7})
    assert set(plan.kept) == {"2"}
    assert network.cost(plan).params == plan.cost.params


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"macs": 0}, "out of range"),
        ({"macs": 1.5}, "out of range"),
        ({"macs": float("nan")}, "out of range"),
        ({"macs": "half"}, "out of range"),
        ({"flops": 0.5}, "unknown unit 'flops'; did you mean 'macs'\\? known are params, macs, bytes, units"),
        ({}, "not a budget"),
        (0.5, "not a budget"),
        ({"macs": 0.001}, "the smallest reachable is macs 0.0"),
    ],
)
def test_impossible_budgets_are_refused(network: sc.Network, keep: dict[str, float], message: str) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        sc.plan(network, exact_scores({"0": torch.rand(12), "2": torch.rand(8)}), keep)


@pytest.mark.parametrize("options", [{"round_to": 0}, {"floor": -1}, {"floor": 2.5}, {"allocation": "fair"}])
def test_impossible_options_are_refused(network: sc.Network, options: dict[str, float]) -> None:
    with pytest.raises(sc.SecateurError, match=next(iter(options))):
        sc.plan(network, exact_scores({"0": torch.rand(12), "2": torch.rand(8)}), {"macs": 0.9}, **options)


def test_a_global_ratio_of_nine_tenths_is_not_larger_than_of_eight() -> None:
    model, example = grow("dense")
    network = sc.trace(model, example)
    scores = sc.score(network, by="l1")
    sizes = [sc.plan(network, scores, {"units": 1 - gone}, allocation="global").cost.params for gone in (0.3, 0.5, 0.6)]
    assert sizes == sorted(sizes, reverse=True)
