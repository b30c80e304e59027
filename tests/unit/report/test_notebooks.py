"""The forms of results in notebooks and for further processing: one line, a table, plain numbers, a data frame."""

import json
import sys
import types
from dataclasses import replace
from typing import Any

import pytest
import torch
from matplotlib import pyplot
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.importance.scores import GroupScores
from secateur.report.comparison import Comparison
from secateur.report.comparison_records import ComparisonTrial, CriterionMetrics
from secateur.sparsity.lean_result import LeanResult  # noqa: F401
from secateur.sparsity.results import SparseResult
from secateur.tradeoff_curve.curve import Change, Tradeoff, TradeoffPoint


class TwoInputs(nn.Module):
    """A network of tokens and their mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(9, 4), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head((self.hidden(self.embed(tokens)).relu() * mask[..., None]).mean(1))
        return output


@pytest.fixture(scope="module")
def result() -> sc.Result:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return sc.prune(model, torch.randn(32, 4), {"macs": 0.5}, by="l1", new_biases=False, progress=False)


@pytest.fixture
def scores() -> sc.Scores:
    groups = {
        "a": GroupScores(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.25])),
        "<b>": GroupScores.exact(torch.ones(1)),
    }
    return sc.Scores(groups, "mine", 3, {}, "2 examples & more")


@pytest.fixture
def comparison(scores: sc.Scores) -> Comparison:
    metrics = CriterionMetrics(torch.tensor([0.5, 1.5]), None, 0.5)
    trials = tuple(ComparisonTrial(by, {"macs": 0.5}, "none", 0.4, 2.0, metrics) for by in ("mine", "l1"))
    return Comparison("Net", trials, {"mine": scores, "l1": scores}, {}, metrics, False)


@untrained_networks
def test_everything_is_one_short_line(result: sc.Result, scores: sc.Scores, comparison: Comparison) -> None:
    loss = f"{result.report.pruned.loss:.4g}/{result.report.dense.loss:.4g}"
    size = "params=30/58, macs=24/48"
    assert repr(result.plan.network) == "Network('Sequential', params=58, macs=48, groups=1, units=8)"
    assert repr(result.plan) == f"Plan(keep={{'macs': 0.5}}, groups=1, {size})"
    assert repr(result) == f"Result('Sequential', keep={{'macs': 0.5}}, {size})"
    assert repr(result.report) == f"Report('Sequential', keep={{'macs': 0.5}}, {size}, loss={loss})"
    assert repr(SparseResult(result.model, result.plan)) == f"SparseResult('Sequential', keep={{'macs': 0.5}}, {size})"
    assert repr(scores) == "Scores(by='mine', groups=2, units=3)"
    assert repr(scores["a"]) == "GroupScores(units=2, coalitions=0)"
    assert repr(comparison) == "Comparison('Net', mine, l1; macs 0.5; 2 examples)"
    point = TradeoffPoint({"macs": 0.5}, result, {"loss": Change(0.0, 0.0)})
    assert repr(Tradeoff("Net", 7, (point,))) == "Tradeoff('Net', macs 0.5; loss on 7 examples)"


def test_the_result_of_each_method_has_the_short_line() -> None:
    methods = SparseResult.__subclasses__()
    assert {method.__name__ for method in methods} >= {"LeanResult", "PivotResult", "SPPResult", "UnifiedResult"}
    assert all("__repr__" not in vars(method) for method in methods)


def test_plain_numbers(result: sc.Result, scores: sc.Scores, comparison: Comparison) -> None:
    assert scores.to_dict() == {
        "by": "mine",
        "seed": 3,
        "note": "2 examples & more",
        "groups": {
            "a": {"values": [1.0, 2.0], "errors": [0.5, 0.25]},
            "<b>": {"values": [1.0], "errors": [0.0]},
        },
    }
    assert result.plan.to_dict() == {
        "keep": {"macs": 0.5},
        "dense": {"params": 58, "macs": 48, "bytes": 232},
        "cost": {"params": 30, "macs": 24, "bytes": 120},
        "groups": {"0": {"units": 8, "kept": 4}},
    }
    assert result.report.to_dict() == json.loads(result.report.to_json())
    assert comparison.to_dict() == json.loads(comparison.to_json())
    for values in (scores.to_dict(), result.plan.to_dict()):
        assert json.loads(json.dumps(values)) == values


def test_data_frames(scores: sc.Scores, comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for pandas: its `DataFrame` gets the columns."""
    pandas: Any = types.ModuleType("pandas")
    pandas.DataFrame = dict
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert scores.to_frame() == {
        "group": ["a", "a", "<b>"],
        "unit": [0, 1, 0],
        "score": [1.0, 2.0, 1.0],
        "error": [0.5, 0.25, 0.0],
    }
    assert comparison.to_frame() == {
        "criterion": ["mine", "l1"],
        "keep": ["macs 0.5"] * 2,
        "repair": ["none"] * 2,
        "macs": [0.4] * 2,
        "seconds": [2.0] * 2,
        "loss": [1.0] * 2,
        "accuracy": [None] * 2,
        "agreement": [0.5] * 2,
    }


def test_data_frames_of_networks_plans_reports_and_curves(result: sc.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas: Any = types.ModuleType("pandas")
    pandas.DataFrame = dict
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    groups: Any = result.plan.network.to_frame()
    assert (groups["group"], groups["units"], groups["kind"], groups["macs"]) == (["0"], [8], ["neurons"], [42])
    assert result.plan.to_frame() == {"group": ["0"], "kind": ["neurons"], "units": [8], "kept": [4]}
    measures: Any = result.report.to_frame()
    assert result.to_frame() == measures and result.to_html() == result.report.to_html()
    assert measures["measure"] == ["agreement", "loss", "divergence", "params", "macs", "bytes", "ms"]
    assert (measures["dense"][3:6], measures["pruned"][3:6]) == ([58, 48, 232], [30, 24, 120])
    assert measures["half width of the change"][1] == result.report.changes["loss"].half_width
    points = [TradeoffPoint({unit: 0.5}, result, {"loss": Change(1.0, 0.25)}) for unit in ("macs", "params")]
    curve: Any = Tradeoff("Net", 7, tuple(points)).to_frame()
    assert (curve["budget"], curve["macs"]) == (["macs 0.5", "params 0.5"], [0.5, None])
    assert curve["loss half width"] == [0.25, 0.25] and curve["macs fraction"] == [0.5, 0.5]


def test_without_pandas_the_error_has_the_remedy(scores: sc.Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(sc.SecateurError, match="pip install pandas"):
        scores.to_frame()


def test_tables_of_notebooks_are_escaped(result: sc.Result, scores: sc.Scores) -> None:
    assert scores._repr_html_() == (
        "<table><caption>mine: 2 examples &amp; more</caption>"
        "<tr><th>group</th><th>units</th><th>lowest</th><th>median</th><th>highest</th><th>error</th></tr>"
        "<tr><td>a</td><td>2</td><td>1</td><td>1</td><td>2</td><td>0.375</td></tr>"
        "<tr><td>&lt;b&gt;</td><td>1</td><td>1</td><td>1</td><td>1</td><td>0</td></tr></table>"
    )
    network, plan = result.plan.network, result.plan
    assert "<td>0</td><td>8</td><td>neurons</td>" in network._repr_html_()
    assert replace(network, title="<i>")._repr_html_().startswith("<table><caption>&lt;i&gt;: 58 parameters")
    assert plan._repr_html_().startswith("<table><caption>Sequential: macs 0.5</caption>")
    assert "<tr><td>0</td><td>8</td><td>4</td><td>50%</td></tr>" in plan._repr_html_()
    assert "<tr><td>parameters</td><td>58</td><td>30</td><td>51.7%</td></tr>" in result.report._repr_html_()
    assert result._repr_html_() == result.report._repr_html_()
    assert result.to_dict() == {"plan": plan.to_dict(), "report": result.report.to_dict()}
    curve = Tradeoff("<i>", 7, (TradeoffPoint({"macs": 0.5}, result, {"loss": Change(1.0, 0.25)}),))
    assert curve._repr_html_().startswith("<table><caption>&lt;i&gt;: changes on 7 examples")
    assert "<td>+1.0000 ± 0.2500</td>" in curve._repr_html_()
    assert SparseResult(result.model, plan)._repr_html_() == plan._repr_html_()


def test_a_comparison_shows_its_last_repair_in_a_notebook(comparison: Comparison) -> None:
    table = comparison._repr_html_()
    assert table.startswith("<table><caption>without repair: mine has the least loss") and "<td>l1</td>" in table


def test_everything_plots_itself_with_error_bars(result: sc.Result, scores: sc.Scores, comparison: Comparison) -> None:
    ax = Figure().subplots()
    assert scores.plot(ax) is ax and [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "<b>"]
    bars = [container for container in ax.containers if isinstance(container, ErrorbarContainer)]
    segments = bars[0].lines[2][0].get_segments()
    assert [(end - start)[1] for start, end in segments] == [1.0, 0.5]  # one standard error on both sides
    assert not bars[1].has_yerr
    with pytest.raises(sc.SecateurError, match="'c' matches no group"):
        scores.plot(groups="c")

    ax = result.plan.plot(Figure().subplots())
    assert [patch.get_width() for patch in ax.patches] == [8, 4]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0"]

    ax = result.plan.network.plot(Figure().subplots())
    assert [patch.get_width() for patch in ax.patches] == [42 / 48, 49 / 58]

    ax = result.plot(Figure().subplots())
    heights = [patch.get_height() for patch in ax.patches]
    assert heights[:2] == [30 / 58, 0.5] and any(isinstance(c, ErrorbarContainer) for c in ax.containers)

    ax = comparison.plot(Figure().subplots())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["mine", "l1"]
    with pytest.raises(sc.SecateurError, match=r"no trial used the repair 'refit'; .*known are none"):
        comparison.plot(repair="refit")

    before = pyplot.get_fignums()
    assert result.plan.plot().figure.number not in before
    pyplot.close(result.plan.plot().figure)
    pyplot.close("all")


def test_a_network_as_plain_values(result: sc.Result) -> None:
    values = result.plan.network.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["dense"]["macs"] == 48 and values["inputs"] == ["4"]
    assert values["groups"]["0"]["units"] == 8 and values["frozen"][0]["name"] == "2"
    assert "48 MACs for an input of 4" in str(result.plan.network)
    assert "MACs are those of an input of 4" in str(result.report) and "8 units in 1 group" in str(result.plan.network)


def test_inputs_are_told_by_their_names() -> None:
    network = sc.trace(TwoInputs().eval(), {"tokens": torch.zeros(2, 5, dtype=torch.long), "mask": torch.ones(2, 5)})
    assert "for tokens of 5 and mask of 5," in str(network)
    network = sc.trace(TwoInputs().eval(), (torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 5)))
    assert "for inputs of 5 and 5," in str(network)
