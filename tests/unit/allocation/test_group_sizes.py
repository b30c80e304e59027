"""Sizes of single groups: plans that are changed by hand, and sizes that are given beside a budget."""

from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from residual_network import Residual

pytestmark = untrained_networks


@pytest.fixture(scope="module")
def scores(traced: sc.Network) -> sc.Scores:
    return sc.score(traced, by="l1")


@pytest.fixture(scope="module")
def plan(traced: sc.Network, scores: sc.Scores) -> sc.Plan:
    return sc.plan(traced, scores, {"units": 0.5})


def _lengths(plan: sc.Plan) -> dict[str, int]:
    return {name: len(units) for name, units in plan.kept.items()}


def test_a_changed_plan_keeps_the_units_with_the_highest_scores(
    residual: Residual, traced: sc.Network, scores: sc.Scores, plan: sc.Plan
) -> None:
    before = {name: units.clone() for name, units in plan.kept.items()}
    edited = plan.with_kept({"hidden": 7, "inner.0": 0.25})
    assert _lengths(edited) == {"stem.0": 8, "inner.0": 3, "hidden": 7}
    assert edited.kept["hidden"].tolist() == scores["hidden"].values.topk(7).indices.sort().values.tolist()
    small = sc.cut(residual, edited)
    assert sum(p.numel() for p in small.parameters()) == edited.cost.params
    assert edited.cost == traced.cost(edited)
    assert all(torch.equal(units, plan.kept[name]) for name, units in before.items())
    assert edited.notes[-1] == "changed by hand: inner.0 3 of 12, hidden 7 of 10"


def test_groups_are_named_by_globs_modules_and_classes(residual: Residual, plan: sc.Plan) -> None:
    assert _lengths(plan.with_kept({"*": 1.0})) == {"stem.0": 16, "inner.0": 12, "hidden": 10}
    assert _lengths(plan.with_kept({nn.Conv2d: 0.25, "stem.0": 6})) == {"stem.0": 6, "inner.0": 3, "hidden": 5}
    assert _lengths(plan.with_kept({"stem.0": 6, nn.Conv2d: 0.25})) == {"stem.0": 6, "inner.0": 3, "hidden": 5}
    assert _lengths(plan.with_kept({"*": 0.5, "in*": 2}))["inner.0"] == 2
    assert _lengths(plan.with_kept({"*": "50%"})) == _lengths(plan.with_kept({"*": 0.5}))
    assert _lengths(plan.with_kept({residual.inner[3]: 5}))["stem.0"] == 5  # it is added to the stem


@pytest.mark.parametrize("units", [[3, 1], torch.tensor([1, 3]), torch.arange(10).eq(1) | torch.arange(10).eq(3)])
def test_units_are_named_by_indices(plan: sc.Plan, units: object) -> None:
    assert plan.with_kept({"hidden": units}).kept["hidden"].tolist() == [1, 3]  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (3, "sizes is an int; give a dict from names of groups to sizes"),
        ({"hiden": 3}, "no group is named 'hiden'; the nearest are hidden"),
        ({"hidden": 11}, "hidden can't keep 11 of its 10 units: it has 10; the nearest sizes are 9, 10"),
        ({"hidden": 0}, "hidden can't keep 0 of its 10 units: it keeps 1 at least; the nearest sizes are 1, 2"),
        ({"hidden": 1.5}, "1.5 is no size for hidden; give a whole number of its 10 units, a fraction"),
        ({"hidden": True}, "True is no size for hidden"),
        ({"hidden": "3"}, "'3' is no size for hidden"),
        ({"hidden": "150%"}, "'150%' is no size for hidden; .* a fraction above 0 and at most 1.0 or '50%'"),
        ({"hidden": [3, 3]}, r"\[3, 3\] are no units of hidden; give different indices from 0 to 9"),
        ({"hidden": [10]}, r"\[10\] are no units of hidden"),
        ({"hidden": [0.5]}, r"\[0.5\] are no units of hidden"),
        ({"hidden": []}, r"\[\] are no units of hidden"),
        ({"stem.0": 5, "inner.3": 6}, "stem.0 and inner.3 both lie in the group stem.0, whose layers are coupled"),
        ({"fc": 2}, "no group is named 'fc'; its units can't be removed"),
    ],
)
def test_what_a_group_can_not_keep_is_refused(plan: sc.Plan, kept: dict[str, object], message: str) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        plan.with_kept(kept)  # type: ignore[arg-type]


def test_a_number_of_units_needs_scores(traced: sc.Network, scores: sc.Scores) -> None:
    plan = sc.plan(traced, sc.score(traced, by="l1", skip="hidden"), {"units": 0.9})
    with pytest.raises(sc.SecateurError, match="hidden has no scores to choose 3 of its 10 units by; give the indices"):
        plan.with_kept({"hidden": 3})
    assert _lengths(plan.with_kept({"hidden": scores["hidden"].values.topk(3).indices}))["hidden"] == 3


def test_the_budget_takes_units_from_the_other_groups(traced: sc.Network, scores: sc.Scores) -> None:
    plan = sc.plan(traced, scores, {"macs": 0.5}, sizes={"hidden": 9, "inner.*": 1.0})
    assert _lengths(plan)["hidden"] == 9 and _lengths(plan)["inner.0"] == 12 and _lengths(plan)["stem.0"] < 16
    assert plan.cost.macs <= 0.5 * plan.dense.macs
    assert plan.notes == ("sizes that were given: inner.0 12 of 12, hidden 9 of 10",)
    alone = sc.plan(traced, scores, sizes={nn.Conv2d: 0.5})
    assert _lengths(alone) == {"stem.0": 8, "inner.0": 6, "hidden": 10} and alone.keep == {}
    assert _lengths(alone.with_kept({"stem.0": 10}))["stem.0"] == 10


def test_sizes_obey_the_floor_and_the_step(traced: sc.Network, scores: sc.Scores) -> None:
    plan = sc.plan(traced, scores, sizes={"stem.0": 0.4}, round_to=8)
    assert _lengths(plan)["stem.0"] == 8
    with pytest.raises(sc.SecateurError, match=r"stem.0 can't keep 6 of its 16 units.* nearest sizes are 8, 16"):
        sc.plan(traced, scores, sizes={"stem.0": 6}, round_to=8)
    with pytest.raises(sc.SecateurError, match=r"stem.0 can't keep 6 of its 16 units: it keeps 8 at least"):
        sc.plan(traced, scores, sizes={"stem.0": 6}, floor=0.5)


def test_a_budget_that_the_sizes_do_not_allow_is_refused_before_scoring(residual: Residual) -> None:
    def never(context: object) -> None:
        raise AssertionError

    with pytest.raises(sc.SecateurError, match="can't be met: the smallest reachable is macs 0\\."):
        sc.prune(residual, torch.randn(16, 3, 6, 6), {"macs": 0.3}, by=never, sizes={"stem.0": 1.0}, progress=False)  # type: ignore[arg-type]
    with pytest.raises(sc.SecateurError, match=r"asks for 4 units of stem.0, which only= or skip= leaves whole"):
        sc.prune(residual, torch.randn(16, 3, 6, 6), by=never, sizes={"stem.0": 4}, skip="stem.0", progress=False)  # type: ignore[arg-type]
    with pytest.raises(sc.SecateurError, match=r"unknown unit 'layer1\.\*'; .* by sizes="):
        sc.prune(residual, torch.randn(16, 3, 6, 6), {"layer1.*": 0.5}, by=never, progress=False)  # type: ignore[arg-type]
    with pytest.raises(sc.SecateurError, match="keep=None is not a budget"):
        sc.prune(residual, torch.randn(16, 3, 6, 6), by=never, progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("rounds", [1, 2])
def test_prune_takes_sizes(residual: Residual, rounds: int) -> None:
    options = {"by": "l1", "rounds": rounds, "progress": False}
    x = torch.randn(32, 3, 6, 6)
    result = sc.prune(residual, x, {"macs": 0.6}, sizes={"hidden": 4, residual.inner[0]: 0.75}, **options)  # type: ignore[arg-type]
    assert _lengths(result.plan)["hidden"] == 4 and _lengths(result.plan)["inner.0"] <= 12
    assert result.plan.cost.macs <= 0.6 * result.plan.dense.macs
    assert "sizes that were given: inner.0 9 of 12, hidden 4 of 10" in str(result.report)
    alone = sc.prune(residual, x, sizes={"hidden": 0.5}, **options)  # type: ignore[arg-type]
    assert alone.model.hidden.out_features == 5 and alone.model.stem[0].out_channels == 16
    assert "kept sizes of groups" in str(alone.report) and "hidden 5 of 10" in str(alone.report)


def test_a_budget_beside_sizes_of_all_groups_is_checked(residual: Residual) -> None:
    data = torch.randn(16, 3, 8, 8)
    options: Any = {"sizes": {"*": "50%"}, "progress": False}
    result = sc.prune(residual, data, {"macs": 0.9}, **options)
    assert _lengths(result.plan) == _lengths(result.plan.with_kept({"*": 0.5}))
    with pytest.raises(sc.SecateurError, match="can't be met"):
        sc.prune(residual, data, {"macs": 0.01}, **options)
