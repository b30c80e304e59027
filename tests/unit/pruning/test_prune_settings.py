"""The settings of `prune`: its defaults, a limit of time, scores that exist."""

import inspect
import itertools
import warnings
from typing import Any

import pytest
import torch

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur.allocation.config import COMPARISON, DEFAULTS
from secateur.recovery.refit import refit
from secateur.utils.time_budget import TimeBudget

pytestmark = untrained_networks


@pytest.mark.filterwarnings("ignore:left out")
def test_a_last_fit_that_would_take_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refit that takes 6 of 10 seconds on trial would take as long on all examples."""
    seconds = [0.0]

    def slow_refit(*args: Any) -> Any:
        seconds[0] += 6
        return refit(*args)

    monkeypatch.setattr("secateur.pruning.prune.TimeBudget", lambda limit: TimeBudget(limit, lambda: seconds[0]))
    monkeypatch.setattr("secateur.recovery.repair_runner.refit", slow_refit)
    torch.manual_seed(0)
    model, x = linear_stack(6, 16, 16, 3), torch.randn(96, 6)
    for limit, note in ((10, ["the fit to the examples held out"]), (14, [])):
        seconds[0] = 0.0
        result = sc.prune(model, x, {"macs": 0.5}, repair="refit", seconds=limit, progress=False)
        assert result.report.settings["left_out"] == note
        assert seconds[0] == (6 if note else 12)


@pytest.mark.parametrize(("ticks", "left_out"), [(1e6, ()), (3.0, "all"), (30.0, "some")])
def test_a_time_budget_says_what_was_left_out(
    ticks: float, left_out: str | tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which every look takes a second: the result is whole, whatever time there is."""
    ticking = itertools.count()
    monkeypatch.setattr(
        "secateur.pruning.prune.TimeBudget", lambda seconds: TimeBudget(seconds, lambda: float(next(ticking)))
    )
    torch.manual_seed(0)
    model, x = linear_stack(6, 16, 16, 3), torch.randn(96, 6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = sc.prune(model, x, {"macs": 0.5}, seconds=ticks, target="any", progress=False)
    messages = [
        str(warning.message) for warning in caught if "left out, so that it takes no more than" in str(warning.message)
    ]
    noted = result.report.settings["left_out"]
    assert bool(messages) == bool(noted) == bool(left_out)
    assert result.plan.cost.macs <= 0.5 * result.plan.dense.macs
    assert all(note in messages[0] and note in str(result.report) for note in noted)
    repaired = [step["name"] for step in result.report.settings["repairs"]]
    assert repaired == (["refit"] if left_out == "all" else ["refit", "adapt"])
    if left_out == "all":
        starts = [note.lstrip("0123456789 of").split()[0] for note in noted]
        assert starts == ["curves", "simulations", "the", "the", "most"]
        assert "s have passed: some steps are always done" in messages[0]
        assert not result.report.settings["layers"] and result.report.dense.latency.median > 0


def test_without_a_time_budget_nothing_is_left_out() -> None:
    result = sc.prune(linear_stack(6, 16, 3), torch.randn(40, 6), {"macs": 0.5}, progress=False)
    assert result.report.settings["left_out"] == []
    with pytest.raises(sc.SecateurError, match="seconds above 0"):
        sc.prune(linear_stack(6, 16, 3), torch.randn(40, 6), {"macs": 0.5}, seconds=0)


def test_scores_that_exist_are_taken_or_refused() -> None:
    model, x = linear_stack(6, 16, 3), torch.randn(40, 6)
    scores = sc.score(sc.trace(model, x[:2]), by="l1")
    result = sc.prune(model, x, {"macs": 0.5}, scores=scores, by="l1", progress=False)
    assert result.scores is scores
    assert set(result.plan.kept["0"].tolist()) == set(scores["0"].values.argsort()[8:].tolist())
    for settings, message in (
        ({"by": "l2"}, r"by would change how the network is scored, but scores= are given, by 'l1'"),
        ({"rounds": 2}, r"rounds would change"),
        ({"ablation": "zero", "aggregate": "max"}, r"ablation, aggregate would change"),
    ):
        with pytest.raises(sc.SecateurError, match=message):
            sc.prune(model, x, {"macs": 0.5}, scores=scores, progress=False, **settings)
    for other in (linear_stack(6, 20, 3), linear_stack(6, 16, 16, 3)):
        elsewhere = sc.score(sc.trace(other, x[:2]), by="l1")
        with pytest.raises(sc.SecateurError, match="these are scores of another network"):
            sc.prune(model, x, {"macs": 0.5}, scores=elsewhere, progress=False)


def test_scores_of_some_groups_prune_these_alone() -> None:
    model, x = linear_stack(6, 16, 16, 3), torch.randn(40, 6)
    scores = sc.score(sc.trace(model, x[:2]), by="l1")
    result = sc.prune(model, x, {"units": 0.8}, scores=scores, only="2", progress=False)
    assert set(result.plan.kept) == {"2"}
    assert result.model[0].out_features == 16


def test_the_defaults_of_prune_are_those_of_its_settings() -> None:
    for function, config in ((sc.prune, DEFAULTS), (sc.compare, COMPARISON)):
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if hasattr(config, name) and parameter.default is not parameter.empty
        }
        assert {"ablation", "allocation", "repair", "seed", "loss"} <= set(defaults)
        for name, value in defaults.items():
            assert name == "by" or value == getattr(config, name)
