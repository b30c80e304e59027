"""Settings of arithmetic: what is compared is computed in full precision, and the user's settings come back."""

import time
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.utils.devices import comparable_arithmetic, runtime_clock


class Recorder(nn.Module):
    """Notes in which arithmetic it runs."""

    notes: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        self.notes.append(torch.backends.cudnn.conv.fp32_precision)
        y: Tensor = self.layers(x)
        return y


def test_a_cut_model_is_compared_in_full_precision_and_the_settings_come_back() -> None:
    model = Recorder().eval()
    network = sc.trace(model, torch.randn(2, 4))
    plan = sc.plan(network, sc.score(network, by="l2"), keep={"units": 0.5})
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    Recorder.notes.clear()
    sc.cut(model, plan)
    assert Recorder.notes and set(Recorder.notes) == {"ieee"}
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"


def test_settings_come_back_after_an_error() -> None:
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    try:
        with comparable_arithmetic():
            raise KeyError
    except KeyError:
        pass
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"


def test_one_thread_of_a_processor_is_timed_without_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    for threads, clock in ((1, time.thread_time), (2, time.perf_counter)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert runtime_clock() is clock
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    coarse = SimpleNamespace(resolution=0.0156)
    monkeypatch.setattr(time, "get_clock_info", lambda name: coarse)
    assert runtime_clock() is time.perf_counter


def test_the_clock_waits_for_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run after their launch returns: a clock that does not wait times the launches alone."""
    waits: list[None] = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: waits.append(None))
    clock = runtime_clock()
    assert clock() <= clock()
    assert len(waits) == 2
