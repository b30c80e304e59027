"""`plan` with examples chooses what `prune` chooses."""

from typing import Any

import pytest
import torch

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur.evaluation.timing import Stopwatch
from simulated_plans import weights_as_times

pytestmark = untrained_networks


PLANNED = [
    ({"macs": 0.5}, {}),
    ({"macs": 0.4}, {"allocation": ("uniform", "global"), "target": "any"}),
    ({"params": 0.5}, {"round_to": 8, "repair": "refit"}),
    ({"loss": 0.05}, {}),
    ({"latency": 0.6}, {}),
]


@pytest.mark.parametrize(("keep", "settings"), PLANNED)
def test_plan_chooses_the_sizes_that_prune_chooses(
    keep: dict[str, float], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step, with the scores handed on, the plan is the one of the whole way in one call."""
    model, x = linear_stack(6, 64, 48, 3), torch.randn(160, 6)
    total = sum(p.numel() for p in model.parameters())
    monkeypatch.setattr(Stopwatch, "time_ratio", lambda _, small: sum(p.numel() for p in small.parameters()) / total)
    monkeypatch.setattr(Stopwatch, "dense_ms", lambda _: [10.0])
    monkeypatch.setattr("secateur.allocation.latency_bounds.measure_latency", weights_as_times)
    result = sc.prune(model, x, keep, holdout=0, progress=False, **settings)
    scores = sc.score(result.plan.network, x, by="obs", progress=False)
    plan = sc.plan(result.plan.network, scores, keep, data=x, model=model, progress=False, **settings)
    assert all(torch.equal(plan.kept[name], kept) for name, kept in result.plan.kept.items())
    assert (plan.keep, plan.notes, plan.change) == (result.plan.keep, result.plan.notes, result.plan.change)
    assert (plan.change is not None) == ("loss" in keep)
    again = sc.prune(model, x, keep, scores=scores, holdout=0, progress=False, **settings)
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), result.model.parameters(), strict=True))


def test_what_needs_examples_says_so() -> None:
    network = sc.trace(linear_stack(6, 8, 3), torch.randn(2, 6))
    scores = sc.score(network, by="l2")
    for settings, message in (
        ({"keep": {"macs": 0.5}, "allocation": "auto"}, r"allocation='auto' tries allocations on examples: give data="),
        ({"keep": {"accuracy": -0.1}}, r"bound on the accuracy, which is measured on examples: give data="),
        ({"keep": {"ms": 5}}, r"give data=, by which they are measured, or a table, latency="),
    ):
        with pytest.raises(sc.SecateurError, match=message):
            sc.plan(network, scores, **settings)
    with pytest.raises(sc.SecateurError, match="refuses inputs"):
        sc.plan(network, scores, {"macs": 0.5}, data=torch.randn(8, 5), progress=False)
    with pytest.raises(sc.SecateurError, match="has shape"):
        sc.plan(network, scores, {"macs": 0.5}, data=torch.randn(8, 6), model=linear_stack(6, 9, 3), progress=False)
