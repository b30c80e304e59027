"""The times of a network's layers, and the note on a cut that is less faster than it is smaller."""

import json
import mmap
import resource

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.coupling.effective_macs import EffectiveMacs
from secateur.data.conversion import as_batches
from secateur.evaluation.layer_times import LayerTime, layer_times, speed_note
from secateur.evaluation.timing import FEWEST_ROUNDS, ROUNDS, interleaved_times
from secateur.utils.devices import page_faults


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Sequential(nn.Linear(64, 64), nn.ReLU()), nn.Linear(64, 3))


def test_every_innermost_module_has_a_time_and_keeps_its_hooks() -> None:
    model, x = network(), torch.randn(4, 8)
    calls: list[int] = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    before = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    times = layer_times(model, network(), as_batches(x)[0])
    assert {entry.name for entry in times} == {"0", "1", "2.0", "2.1", "3", ""}
    assert all(entry.dense >= 0 and entry.pruned >= 0 for entry in times)
    assert before == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    assert model.training


@pytest.mark.parametrize(("seconds", "runs"), [(0.0, 1), (1e9, 6)])
def test_networks_that_take_long_run_once(monkeypatch: pytest.MonkeyPatch, seconds: float, runs: int) -> None:
    monkeypatch.setattr("secateur.evaluation.layer_times.SECONDS", seconds)
    model, calls = network(), list[int]()
    model[0].register_forward_hook(lambda *_: calls.append(1))
    times = layer_times(model, network(), as_batches(torch.randn(4, 8))[0])
    assert len(calls) == runs and {entry.name for entry in times} == {"0", "1", "2.0", "2.1", "3", ""}


def test_hooks_are_removed_where_a_run_fails() -> None:
    model = network()
    with pytest.raises(RuntimeError):
        layer_times(model, model, as_batches(torch.randn(4, 7))[0])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_reason_is_named() -> None:
    model, x = network(), torch.randn(4, 8)
    traced = sc.trace(model, x)
    plan = sc.plan(traced, sc.score(traced, by="l2"), {"macs": 0.5})
    slow = (LayerTime("0", 4.0, 3.0), LayerTime("1", 1.0, 2.0))
    assert speed_note(model, plan, slow, 1.9) == ""
    assert "operators without MACs" in speed_note(model, plan, slow, 1.1)
    assert "40% of its time" in speed_note(model, plan, slow, 1.1)
    assert "page faults" not in speed_note(model, plan, slow, 1.1, 400)
    assert "in 1,144 page faults (with glibc" in speed_note(model, plan, slow, 1.1, 1144)
    short = (LayerTime("0", 0.02, 0.01), LayerTime("3", 0.02, 0.01))
    assert "calling its layers takes much of their time" in speed_note(model, plan, short, 1.1)
    plan = type(plan)(**{**vars(plan), "effective": EffectiveMacs(16, 100, 90)})
    assert "kernels work on 16 channels at once, and counted in such steps 90% of the MACs are left" in speed_note(
        model, plan, slow, 1.0
    )


def test_the_report_shows_where_the_time_goes() -> None:
    result = sc.prune(network(), torch.randn(40, 8), {"macs": 0.5}, by="l2", repair=None, progress=False)
    assert "where the time goes, ms" in str(result.report)
    assert "Time of each module" in result.report.to_html()
    layers = json.loads(result.report.to_json())["settings"]["layers"]
    assert {layer["name"] for layer in layers} == {"0", "1", "2.0", "2.1", "3", ""}


def test_pages_that_a_run_takes_anew_are_counted() -> None:
    """A mapping of its own is given back after each run, whatever the C library keeps."""
    size = 64 * mmap.PAGESIZE

    def call() -> None:
        with mmap.mmap(-1, size) as memory:
            memory.write(bytes(size))

    counted = page_faults(call)
    assert counted >= 16 or not hasattr(resource, "RUSAGE_THREAD")


@pytest.mark.parametrize(("seconds", "runs"), [(0.0, FEWEST_ROUNDS), (1e9, 1 + ROUNDS)])
def test_the_first_run_of_calls_that_take_long_counts(
    monkeypatch: pytest.MonkeyPatch, seconds: float, runs: int
) -> None:
    monkeypatch.setattr("secateur.evaluation.timing.SECONDS", seconds)
    calls: list[str] = []
    times = interleaved_times([lambda: calls.append("dense"), lambda: calls.append("small")])
    assert calls == ["dense", "small"] * runs
    assert [len(of_call) for of_call in times] == [min(runs, ROUNDS)] * 2
