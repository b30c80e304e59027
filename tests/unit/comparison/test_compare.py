"""Criteria side by side: what is recommended follows from the numbers, and nothing of the user's is touched."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import secateur as sc
from exact_scores import exact_scores
from expected_warnings import untrained_networks
from secateur.cli.main import app
from secateur.importance.rank_correlation import ALL, agreements
from secateur.report.comparison import Comparison
from secateur.report.comparison_records import ComparisonTrial, CriterionMetrics

pytestmark = untrained_networks


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def examples(count: int = 120) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(1))


def data() -> list[Tensor]:  # for the command line
    return list(examples().split(40))


def test_every_criterion_is_tried_at_every_budget_with_and_without_repair() -> None:
    model = Tower().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    comparison = sc.compare(model, examples(), by=("obs", "l2", "random"), keep={"macs": (0.75, 0.5)}, progress=False)
    assert [(t.by, t.keep["macs"], t.repair) for t in comparison.trials] == [
        (by, keep, repair) for by in ("obs", "l2", "random") for keep in (0.75, 0.5) for repair in ("none", "refit")
    ]
    assert all(trial.macs <= trial.keep["macs"] for trial in comparison.trials)
    assert all(len(trial.metrics.losses) == 30 for trial in comparison.trials)  # a quarter of 120 is held out
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.c.weight.grad is None


def test_examples_given_to_judge_by_are_judged_by() -> None:
    model, labels = Tower().eval(), torch.zeros(50, dtype=torch.long)
    test = [(examples(50), labels)]
    comparison = sc.compare(model, examples(), by="l1", keep={"units": 0.5}, test=test, repair=None, progress=False)
    (trial,) = comparison.trials
    plan = sc.plan(
        sc.trace(model, examples(2)), sc.score(sc.trace(model, examples()), examples(), "l1"), {"units": 0.5}
    )
    small = sc.cut(model, plan)
    losses = torch.nn.functional.cross_entropy(small(test[0][0]), labels, reduction="none")
    assert torch.allclose(trial.metrics.losses, losses.double(), rtol=1e-5)
    assert trial.metrics.accuracy == pytest.approx(float((small(test[0][0]).argmax(1) == 0).double().mean()))
    assert comparison.held_out and comparison.dense.agreement == 1.0


def test_what_cant_rank_a_network_is_named_with_its_reason() -> None:
    comparison = sc.compare(
        Tower().eval(), examples(), by=("batchnorm-scale", "l2"), keep={"macs": 0.5}, progress=False
    )
    assert list(comparison.scores) == ["l2"] and "no batch norm" in comparison.refused["batchnorm-scale"]
    assert "batchnorm-scale cannot rank this network: no batch norm" in str(comparison)
    with pytest.raises(sc.SecateurError, match="no batch norm"):
        sc.compare(Tower().eval(), examples(), by="batchnorm-scale", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": ()}, "by is empty"),
        ({"by": ("l3",)}, "no criterion is named 'l3'"),
        ({"keep": {"latency": 0.5}}, "give fractions of"),
        ({"keep": {"macs": ()}}, "give fractions of"),
        ({"keep": {}}, "give fractions of"),
        ({"keep": 0.5}, "give fractions of"),
        ({"keep": {"macs": "half"}}, "out of range"),
        ({"keep": {"macs": (0.5, 2)}}, "out of range"),
        ({"allocation": "fair"}, "allocation='fair' is unknown"),
        ({"options": {"l3": {}}}, "not compared: 'l3'; known are l2"),
        ({"keep": {"macs": 1e-9}}, "macs"),
        ({"repair": "pray"}, "pray"),
    ],
)
def test_bad_input_is_refused_before_anything_is_scored(options: dict[str, object], message: str) -> None:
    settings = {"by": ("l2",), "progress": False} | options
    with pytest.raises(sc.SecateurError, match=re.escape(message)):
        sc.compare(Tower().eval(), examples(), **settings)
    with pytest.raises(sc.SecateurError, match="fewer than 8 examples"):
        sc.compare(Tower().eval(), examples(5), by="l2", progress=False)


def by_hand(losses: dict[str, list[float]], seconds: dict[str, float]) -> Comparison:
    scores = {by: exact_scores({"g": torch.randn(4)}, by) for by in losses}
    trials = [
        ComparisonTrial(
            by, {"macs": 0.5}, "none", 0.5, seconds[by], CriterionMetrics(torch.tensor(values).double(), None, None)
        )
        for by, values in losses.items()
    ]
    dense = CriterionMetrics(torch.zeros(4).double(), None, None)
    return Comparison("Net", tuple(trials), scores, {}, dense, True)


def test_the_recommendation_follows_from_paired_differences() -> None:
    """b is worse than a by the same on every example; c differs by more, but not always to the same side."""
    comparison = by_hand(
        {"a": [1.0, 5.0, 9.0, 13.0], "b": [1.5, 5.5, 9.4, 13.6], "c": [4.0, 3.0, 13.0, 10.0]},
        {"a": 3.0, "b": 1.0, "c": 0.5},
    )
    assert comparison.best("none") == "a" and comparison.equals("none") == ["c"]
    assert "does not differ significantly from c; c is the cheapest of them" in comparison.recommendation("none")
    assert comparison.rows("none")[1][0] == "a" and comparison.rows("none")[1][2].startswith("*")
    alone = by_hand({"a": [1.0, 5.0, 9.0, 13.0], "b": [2.0, 6.1, 10.0, 14.0]}, {"a": 3.0, "b": 1.0})
    assert "every other criterion has a higher loss" in alone.recommendation("none")
    with pytest.raises(sc.SecateurError, match="no trial used 'z'"):
        alone.losses("z", "none")


def test_correlations_by_hand() -> None:
    a = exact_scores({"g": [1.0, 2, 3, 4], "h": torch.ones(3)}, "a")
    b = exact_scores({"g": [1.0, 3, 2, 10], "h": torch.rand(3)}, "b")
    one, flat, both = agreements(a, b)
    assert (one.spearman, one.kendall) == (pytest.approx(0.8), pytest.approx(2 / 3))
    assert one.pearson == pytest.approx(float(torch.corrcoef(torch.tensor([[1.0, 2, 3, 4], [1, 3, 2, 10]]))[0, 1]))
    assert flat.spearman != flat.spearman and (both.group, both.units) == (ALL, 7)
    with pytest.raises(sc.SecateurError, match="no group in common"):
        agreements(a, exact_scores({}, "c"))


def test_the_command_line_compares_and_writes(tmp_path: Path) -> None:
    output = CliRunner().invoke(
        app,
        ["compare", "--model", "test_compare:Tower", "--data", "test_compare:data", "--by", "l2", "--by", "random",
         "--keep", "macs=0.75,0.5", "--out", str(tmp_path)],
    )  # fmt: skip
    assert output.exit_code == 0, output.output
    assert "after refit: " in output.stdout and "agreement of the rankings" in output.stdout
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert len(written["trials"]) == 8 and set(written["recommendations"]) == {"none", "refit"}
    page = (tmp_path / "comparison.html").read_text()
    assert "<svg" in page and "correlations" in page and "http" not in page


def test_criteria_are_compared_at_sizes_that_are_given() -> None:
    model = Tower().eval()
    comparison = sc.compare(model, examples(), ("l2", "random"), sizes={"a": 4, "b": 0.5}, repair=None, progress=False)
    assert [(trial.by, trial.budget, trial.macs) for trial in comparison.trials] == [
        (by, "sizes of groups", (6 * 4 + 4 * 8 + 8 * 3) / (6 * 16 + 16 * 16 + 16 * 3)) for by in ("l2", "random")
    ]
    kept = comparison.scores["l2"]["a"].values.argsort()[-4:]
    plan = sc.plan(sc.trace(model, examples(2)), comparison.scores["l2"], sizes={"a": 4, "b": 0.5})
    assert sorted(plan.kept["a"].tolist()) == sorted(kept.tolist())
    beside = sc.compare(model, examples(), "l2", {"params": 0.5}, sizes={"a": 1.0}, repair=None, progress=False)
    (trial,) = beside.trials
    assert trial.macs <= 0.55 and trial.budget == "params 0.5"


def test_one_example_tells_no_difference_between_criteria() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    options: Any = {"by": ("l1", "random"), "keep": {"macs": 0.5}, "test": torch.randn(1, 4), "progress": False}
    text = sc.compare(model, torch.randn(64, 4), **options).recommendation("none")
    assert "does not differ significantly" in text
    assert "±" not in text and "nan" not in text


def test_a_comparison_by_a_metric_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    data = [(torch.randn(64, 4), torch.randint(0, 3, (64,)))]

    def right_scores(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.where(outputs.argmax(1) == targets, outputs.amax(1), torch.nan)

    options: Any = {"by": ("l1", "random"), "keep": {"macs": 0.5}, "metric": right_scores, "progress": False}
    first, again = (sc.compare(model, data, checkpoint=tmp_path / "run", **options) for _ in range(2))
    assert again.rows("none")[1:] == first.rows("none")[1:]
    assert again.dense.metric is not None and again.trials[0].metrics.metric is not None
