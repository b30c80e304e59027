"""Warnings of runs: one line for those that are alike, at the caller's line, and all of them in the report."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.errors import SecateurWarning
from secateur.report.saved_report import saved_report
from secateur.utils.collected_warnings import own_warnings_dropped, warn, warnings_collected

CARE = "is refitted with care only"


def model() -> nn.Module:
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(24, 24), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(24, 4)).eval()


def prune(dense: nn.Module | None = None, keep: Any = None, **options: Any) -> sc.Result:
    settings = {"by": "l1", "allocation": "uniform", "target": "any", "repair": "refit", "progress": False, **options}
    return sc.prune(model() if dense is None else dense, torch.randn(16, 24), keep or {"macs": 0.5}, **settings)


@pytest.fixture(scope="module")
def pruned() -> tuple[sc.Result, list[warnings.WarningMessage]]:
    """A result of a run on few examples, and the warnings that it showed."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        return prune(), list(shown)


def test_warnings_that_are_alike_are_one_line_at_the_callers(
    pruned: tuple[sc.Result, list[warnings.WarningMessage]],
) -> None:
    of_layers = [record for record in pruned[1] if CARE in str(record.message)]
    assert len(of_layers) == 1 and of_layers[0].category is SecateurWarning
    assert str(of_layers[0].message).startswith("2 is refitted") and "the same holds for 4, 6" in str(
        of_layers[0].message
    )
    assert of_layers[0].filename == __file__


def test_all_warnings_stand_in_the_report(
    pruned: tuple[sc.Result, list[warnings.WarningMessage]], tmp_path: Path
) -> None:
    report, shown = pruned[0].report, [str(record.message) for record in pruned[1]]
    assert report.settings["warnings"] == shown
    assert json.loads(report.to_json())["settings"]["warnings"] == shown
    assert all(f"warning: {line}" in str(report) for line in shown)
    assert shown[0].split(";")[0][1:] in report.to_html()
    pruned[0].save(tmp_path)
    assert f"warning: {shown[0]}" in saved_report(tmp_path, as_json=False)


def test_a_filter_hides_warnings_and_the_report_has_them() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("ignore", SecateurWarning)
        result = prune()
    assert not shown and any(CARE in line for line in result.report.settings["warnings"])


def test_a_filter_turns_warnings_into_errors_where_they_arise() -> None:
    with warnings.catch_warnings(), pytest.raises(SecateurWarning, match="2 is refitted"):
        warnings.simplefilter("error")
        prune()


def test_plans_that_are_not_taken_warn_of_nothing() -> None:
    """A bound tries many plans, each with layers that see few rows; only the repair of the one taken tells of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SecateurWarning)
        result = prune(keep={"loss": 0.5}, allocation="auto", repair=None)
        sc.compare(model(), torch.randn(16, 24), ("l1", "l2"), {"macs": (0.75, 0.5)}, progress=False)
        prune(rounds=3, repair=None)
    assert result.report.settings["warnings"] == []


def test_points_of_a_curve_have_warnings_of_their_own() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        curve = sc.tradeoff(
            model(), torch.randn(24, 24), {"macs": (0.75, 0.5)}, by="l1", repair="refit", progress=False
        )
    assert sum(CARE in str(record.message) for record in shown) == 1
    of_points = [point.result.report.settings["warnings"] for point in curve.points]
    (first,), (second,) = ([line for line in lines if CARE in line] for lines in of_points)
    assert first != second


class Warns(nn.Module):
    """A model whose own code warns."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.calls = model(), 0

    def forward(self, x: Tensor) -> Tensor:
        warnings.warn(f"call with {len(x)} rows", RuntimeWarning, stacklevel=1)
        return self.layers(x)


def test_warnings_of_others_are_shown_once_with_their_own_place() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        sc.compare(Warns(), torch.randn(16, 24), ("l1",), {"macs": 0.5}, repair=None, progress=False)
    (record,) = [record for record in shown if record.category is RuntimeWarning]
    assert str(record.message).startswith("call with ") and "more differ" in str(record.message)
    assert record.filename == __file__


def test_warnings_are_shown_though_the_run_fails() -> None:
    with pytest.warns(SecateurWarning, match="first"), pytest.raises(ZeroDivisionError), warnings_collected():
        warn("first")
        1 / 0  # noqa: B018


def test_hooks_for_warnings_get_them(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        try:
            with warnings_collected():
                warn("to the log")
                assert not caplog.records
        finally:
            logging.captureWarnings(False)
    assert ["to the log" in record.getMessage() for record in caplog.records] == [True]


def test_equal_warnings_and_those_on_trial() -> None:
    with pytest.warns(SecateurWarning) as shown, warnings_collected():
        warn("the same")
        warn("the same")
        with own_warnings_dropped():
            warn("of a plan on trial")
        warn("3 rows")
        warn("4 rows")
    texts = [str(record.message) for record in shown]
    assert texts == ["the same", "3 rows (1 more differ from this only in numbers)"]
