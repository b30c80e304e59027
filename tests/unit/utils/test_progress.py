"""The progress of runs: stages and loops, lines, records of the logger, and a bar on a terminal."""

import io
import logging
import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.training.prune_while_training import prune_while_training
from secateur.utils import progress_reporter
from secateur.utils.progress import advance, counted, run_shown, stage, track
from secateur.utils.progress_reporter import LOGGER, SHORT, SILENCE, ProgressReporter, reporter_for
from secateur.utils.progress_run import ProgressRun

pytestmark = untrained_networks

STAGES = ("trace", "score", "plan", "cut", "repair", "measure")


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()


def records(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "secateur"]


def printed_without_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the logger one that nobody configured, as in a plain script; pytest configures the root logger."""
    monkeypatch.setattr(LOGGER, "propagate", False)


def test_each_stage_of_prune_is_a_record_with_its_number_and_seconds(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "secateur"):
        sc.prune(model(), torch.randn(32, 4), {"macs": 0.5}, progress=False)
    lines = [line for line in records(caplog) if " of 6, " in line and not line.endswith(" so far")]
    for number, (name, line) in enumerate(zip(STAGES, lines, strict=True), 1):
        assert line.startswith(f"prune: {number} of 6, {name}: ") and " s" in line
    assert "1 group of 8 units" in lines[0] and "of the MACs" in lines[2] and "divergence" in lines[4]
    assert records(caplog)[-1].startswith("prune took ")
    assert capfd.readouterr() == ("", "")


def test_details_are_records_of_a_lower_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "secateur"):
        sc.score(sc.trace(model(), torch.randn(2, 4)), torch.randn(32, 4), by="obs")
    debug = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert any(line.startswith("score: curvature: ") for line in debug)
    assert any(line.startswith("trace: trial cuts: ") for line in debug)


@pytest.mark.parametrize("call", ["compare", "tradeoff", "repair", "train"])
def test_other_functions_report_their_stages(call: str, caplog: pytest.LogCaptureFixture) -> None:
    dense, x = model(), torch.randn(32, 4)
    with caplog.at_level(logging.INFO, "secateur"):
        if call == "compare":
            sc.compare(dense, x, ("l1", "l2"), {"macs": 0.5}, repair=None)
            assert [line.split(": ")[1] for line in records(caplog)[:3]] == [
                "1 of 3, trace",
                "2 of 3, l1",
                "3 of 3, l2",
            ]
        elif call == "tradeoff":
            sc.tradeoff(dense, x, {"macs": (0.75, 0.5)}, by="l1", repair=None)
            assert [line.split(": ")[1] for line in records(caplog)[2:4]] == ["3 of 4, macs 0.75", "4 of 4, macs 0.5"]
        elif call == "repair":
            plan = sc.plan(network := sc.trace(dense, x), sc.score(network, by="l1"), {"macs": 0.5})
            sc.repair(sc.cut(dense, plan), dense, plan, x)
            assert records(caplog)[-1].startswith("repair took ")
        else:
            prune_while_training(dense, x, {"units": 0.5}, every=1, tuning_steps=2, batch_size=8)
            names = [line.split(": ")[1] for line in records(caplog) if " of 4, " in line]
            assert names == ["1 of 4, prune", "2 of 4, tune", "3 of 4, cut", "4 of 4, measure"]


def test_no_more_than_ten_seconds_pass_without_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed_without_handlers(monkeypatch)
    clock = Clock()
    reporter = ProgressReporter(has_bar=False, prints=True, clock=clock)
    run = ProgressRun("prune", reporter, clock)
    with run.step("plan", position="3 of 6"), run.step("curves", 4) as curves:
        curves.advance()
        for clock.now in range(1, 25):
            reporter.tick(run)
    first, second = capsys.readouterr().err.splitlines()[:2]
    assert first == f"secateur: prune: 3 of 6, plan: curves, 1 of 4, {SILENCE:.0f} s so far, about 27 s left"
    assert "18 s so far, about 54 s left" in second
    assert SILENCE < 10


def test_stages_that_end_at_once_get_no_printed_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed_without_handlers(monkeypatch)
    reporter = ProgressReporter(has_bar=False, prints=True)
    reporter.info("cut: 0.1 s", 0.1)
    reporter.info("score: 1.0 s", SHORT)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "secateur: score: 1.0 s\n")


@pytest.mark.parametrize(
    ("progress", "terminal", "expected"),
    [
        (True, True, (True, False)),
        (True, False, (False, True)),
        (None, True, (True, False)),
        (None, False, (False, False)),
        (False, True, (False, False)),
        (False, False, (False, False)),
    ],
)
def test_the_setting_says_where_progress_appears(
    progress: bool | None, terminal: bool, expected: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed_without_handlers(monkeypatch)
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    reporter = reporter_for(progress)
    assert (reporter._bar is not None, reporter._prints) == expected


def test_lines_are_left_to_loggers_that_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not reporter_for(True)._prints  # pytest configures the root logger
    sys.stderr.close()
    ProgressReporter(False, True).info("a line for a stream that is closed", 5.0)


def test_loops_that_are_left_early_are_over() -> None:
    reporter = ProgressReporter(has_bar=False, prints=False)
    run = ProgressRun("prune", reporter)
    with run.step("plan", position="1 of 1"):
        with run.step("simulated plans", 7) as plans:
            plans.advance(2)
            loop = run.step("layers", 3)
            loop.__enter__()
            assert run.title() == "prune: 1 of 1, plan: simulated plans, 2 of 7: layers, 0 of 3"
        assert run.title() == "prune: 1 of 1, plan"
    assert run.title() == "prune"


def test_a_run_within_a_run_is_part_of_it_or_silent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "secateur"), run_shown("prune", False), stage("score", ("score",)):
        with run_shown("score", True):
            assert list(track("ab", "letters")) == ["a", "b"]
        with run_shown("score", False), counted("hidden"):
            advance()
    text = "\n".join(records(caplog))
    assert "prune: 1 of 1, score: letters: " in text and "hidden" not in text
    assert text.count("took") == 1


def test_outside_of_a_run_nothing_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "secateur"), stage("a", ("a",)), counted("b") as step:
        advance()
        assert list(track(iter("ab"), "letters")) == ["a", "b"]
    assert not records(caplog) and step.completed == 0


def test_a_failed_run_is_logged_with_its_exception(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "secateur"), pytest.raises(ZeroDivisionError), run_shown("prune", False):
        1 / 0  # noqa: B018
    assert records(caplog)[-1].startswith("prune was stopped by ZeroDivisionError after")


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A pseudo-terminal in place of standard error; yields its reading end."""
    reading, writing = pty.openpty()
    with os.fdopen(writing, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield reading
    os.close(reading)


def test_a_bar_on_a_terminal_is_cleared_for_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with terminal(monkeypatch) as reading, caplog.at_level(logging.INFO, "secateur"):
        reporter, handler = reporter_for(True), logging.StreamHandler(sys.stderr)
        monkeypatch.setattr(LOGGER, "handlers", [handler])
        run = ProgressRun("prune", reporter, clock)
        with run.step("plan", position="1 of 2"), run.step("curves", 4) as loop:
            loop.advance()
            clock.now = 2.0
            reporter.tick(run)
            reporter.info("score: 3.0 s", 3.0)
        reporter.finish("prune took 5 s", 5.0)
        content = b""
        while b"took 5 s" not in content:
            content += os.read(reading, 65536)
    drawn = content.decode().replace("\r\n", "\n")
    bar = next(line for line in drawn.split("\r") if "curves" in line)
    assert "[00:02<00:06] prune: 1 of 2, plan: curves, 1 of 4" in bar
    line = next(line for line in drawn.split("\r") if "score: 3.0 s" in line)
    assert line == "score: 3.0 s\n"  # nothing of the bar is before it
    assert drawn.endswith("prune took 5 s\n")


def test_a_process_that_is_forked_within_a_run_can_report(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch), run_shown("prune", True):
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                with progress_reporter.DRAWING:
                    os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_in_a_notebook_the_bar_is_made_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    widgets: list[Any] = []

    class Widget:
        """A stand-in for the bar of tqdm.notebook."""

        def __init__(self, **settings: Any) -> None:
            self.total, self.lines = settings["total"], list[str]()
            assert settings["delay"] > 0  # tqdm shows it at once otherwise, for runs that end at once, too
            widgets.append(self)

        def reset(self, total: float) -> None:
            self.total = total

        def set_description_str(self, text: str, refresh: bool) -> None:
            self.lines.append(text)

        def refresh(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", sys)
    monkeypatch.setattr(progress_reporter, "bar_class", lambda: Widget)
    reporter = reporter_for(True)
    run = ProgressRun("prune", reporter)
    (widget,) = widgets
    with run.step("curves", 4):
        reporter.tick(run)
    assert widget.total == 4 and widget.lines == ["prune: curves, 0 of 4"]
