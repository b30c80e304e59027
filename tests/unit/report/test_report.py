"""The report: what it says is what was measured, and the page stands by itself."""

import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from secateur.files.records import read_record, with_digest
from secateur.report.saved_report import _figures, saved_report
from secateur.report.schema import SavedReport, SavedReport2, SavedSettings2
from secateur.report.text import report_text

pytestmark = untrained_networks


@pytest.fixture(scope="module")
def result() -> sc.Result:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(200, 6)
    test = [(torch.randn(20, 6), torch.randint(0, 3, (20,))) for _ in range(3)]
    return sc.prune(model, x, {"macs": 0.5}, test=test, progress=False)


def test_the_figures_are_those_of_the_models(result: sc.Result) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    torch.randn(200, 6)
    test = [(torch.randn(20, 6), torch.randint(0, 3, (20,))) for _ in range(3)]
    x, y = torch.cat([a for a, _ in test]), torch.cat([b for _, b in test])
    report = result.report
    with torch.no_grad():
        for model, measured in ((dense, report.dense), (result.model, report.pruned)):
            logits = model(x)
            assert measured.loss == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-5)
            assert measured.accuracy == pytest.approx(float((logits.argmax(1) == y).double().mean()))
            same = (logits.argmax(1) == dense(x).argmax(1)).double().mean()
            assert measured.agreement == pytest.approx(float(same))
            log_dense, log_found = dense(x).log_softmax(1), logits.log_softmax(1)
            divergence = F.kl_div(log_found, log_dense, log_target=True, reduction="batchmean")
            assert measured.divergence == pytest.approx(float(divergence), abs=1e-5)
    assert report.examples == 60 and report.held_out
    assert report.groups == {"0": (16, len(result.plan.kept["0"]))}
    assert report.pruned.cost == result.plan.cost
    assert 0 < report.pruned.latency.lower <= report.pruned.latency.median <= report.pruned.latency.upper


def test_without_labels_there_is_no_accuracy_and_in_sample_numbers_are_named() -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    report = sc.prune(model, torch.randn(50, 6), {"macs": 0.5}, by="l1", holdout=0, progress=False).report
    assert report.dense.accuracy is None and report.dense.agreement == 1
    assert "examples, the same that were fitted to (in-sample)" in str(report) and "accuracy" not in str(report)


def test_a_report_of_regression_has_no_accuracy() -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 1, 1))
    x = torch.randn(20, 1, 5, 5)
    report = sc.prune(model, [(x, torch.randn(20, 1, 3, 3))], {"macs": 0.5}, by="l1", progress=False).report
    assert report.dense.accuracy is None and report.dense.agreement is None


def test_changes_that_round_to_zero_have_no_minus_sign(result: sc.Result) -> None:
    figures = _figures(msgspec.json.decode(result.report.to_json(), type=SavedReport))
    dense = replace(figures.dense, loss=1.0, accuracy=0.5)
    text = report_text(replace(figures, dense=dense, pruned=replace(dense, loss=1 - 1e-6, accuracy=0.5 - 1e-6)))
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "+0.0000" in lines["loss"] and "+0.00 " in lines["accuracy"] and "-0.00" not in text


def test_text_and_json_agree(result: sc.Result) -> None:
    content = json.loads(result.report.to_json())
    text = str(result.report)
    assert f"{content['pruned']['cost']['macs']:,}" in text
    assert f"{content['pruned']['accuracy']:.2%}" in text
    assert content["groups"]["0"]["units"] == 16


class Checker(html.parser.HTMLParser):
    VOID = frozenset({"meta", "br", "link", "path", "use", "rect", "line", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def test_the_page_is_well_formed_and_needs_nothing_else(result: sc.Result) -> None:
    page = result.report.to_html()
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert all(link.startswith(("#", "data:")) for link in checker.links)
    assert not re.findall(r"url\((?!#)", page)
    assert f"{result.plan.cost.macs:,}" in checker.cells
    assert page.count('class="kept"') >= 2 and "Scores of 0, from" in page


def test_names_can_not_break_the_page() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("<b>&x", nn.Linear(4, 6))
            self.last = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(getattr(self, "<b>&x")(x)))

    report = sc.prune(Odd(), torch.randn(9, 4), {"macs": 0.5}, by="l1", progress=False).report
    assert "<b>" not in report.to_html()


def test_reports_of_earlier_versions_are_read_under_the_names_of_today(tmp_path: Path) -> None:
    result = sc.prune(
        nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)), torch.randn(64, 4), {"macs": 0.5}, by="l2",
        repair="refit", allocation="uniform", target="avx2", progress=False,
    )  # fmt: skip
    result.save(tmp_path)
    text = saved_report(tmp_path, as_json=False)
    content = (tmp_path / "report.json").read_text(encoding="utf-8")
    settings = json.loads(content)["settings"]
    assert {"fitted"} < set(settings["repairs"][0]) and {"step", "dense", "kept"} == set(settings["effective"])
    former = content.replace("secateur report/3", "secateur report/2").replace('"fitted":', '"seen":')
    before, effective = former.split('"effective"')
    former = f'{before}"effective"{effective.replace("kept", "left", 1)}'
    file = tmp_path / "former.json"
    file.write_bytes(with_digest(former[: former.rindex(',\n "checksum"')].encode() + b"}"))
    record = read_record(file, (SavedReport, SavedReport2))
    assert isinstance(record.settings, SavedSettings2) and report_text(_figures(record)) == text
