"""The table of this machine's times: what is measured, and how it is kept."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.data.conversion import as_batches
from secateur.evaluation import latency_measurement, operator_calls
from secateur.evaluation.latency_measurement import measured_sizes
from secateur.evaluation.latency_table import (
    MOST_CALL_SECONDS,
    LatencyTable,
    LayerLatency,
    with_overhead,
    with_weights_read,
)
from secateur.evaluation.measured_latency import measure_latency
from secateur.evaluation.saved_timings import Timings

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 40, 3, groups=40), nn.Conv2d(40, 24, 1),
        nn.Flatten(), nn.Linear(24 * 16, 5),
    ).eval()  # fmt: skip


def test_times_are_measured_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = convolutions(), torch.randn(2, 3, 8, 8)
    network = sc.trace(model, x)
    first = measure_latency(network, as_batches(x)[0])
    assert len(list(folder.glob("times-*.json"))) == 1
    for module in (operator_calls, latency_measurement):
        monkeypatch.setattr(module, "call_seconds", lambda call: pytest.fail("measured again"))
    again = measure_latency(network, as_batches(x)[0])
    assert again.other_seconds == first.other_seconds
    assert all(torch.equal(a.seconds, b.seconds) for a, b in zip(first.layers, again.layers, strict=True))


def test_another_layout_is_measured_by_itself(folder: Path) -> None:
    model, x = convolutions(), torch.randn(2, 3, 8, 8)
    measure_latency(sc.trace(model, x), as_batches(x)[0])
    (path,) = folder.glob("times-*.json")
    before = len(Timings(CPU)._seconds)
    last = model.to(memory_format=torch.channels_last)
    measure_latency(sc.trace(last, x), as_batches(x)[0])
    assert len(Timings(CPU)._seconds) > before
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", b'{"format": "secateur times/1", "seconds": {"a": 1}}'])
def test_a_damaged_table_is_measured_again(folder: Path, content: bytes) -> None:
    table = Timings(CPU)
    assert table.recall("call", lambda: 1.0) > 0
    table.save()
    (path,) = folder.glob("times-*.json")
    path.write_bytes(content)
    damaged = Timings(CPU)
    assert not damaged._seconds
    damaged.recall("call", lambda: 1.0)
    damaged.save()
    assert "call" in Timings(CPU)._seconds


def test_tables_of_two_processes_are_joined(folder: Path) -> None:
    tables = [Timings(CPU), Timings(CPU)]
    for name, table in zip("ab", tables, strict=True):
        table.recall(name, lambda: 1.0)
    for table in tables:
        table.save()
    assert set(Timings(CPU)._seconds) == {"a", "b"}


def test_a_folder_that_can_not_be_written_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    for name in (str(tmp_path / "file"), ""):
        monkeypatch.setenv("SECATEUR_CACHE", name)
        table = Timings(CPU)
        assert table.recall("call", lambda: 1.0) > 0
        table.save()
    assert (tmp_path / "file").read_text() == "no folder"


def test_times_of_outputs_are_rounded_up_to_steps() -> None:
    """A layer of 40 outputs in steps of 16: 17 to 32 of them take the same time, 33 to 40 that of all."""
    seconds = torch.tensor([[1.0, 2, 3]], dtype=torch.float64)
    assert measured_sizes(40, 16) == (16, 32, 40)
    layer = LayerLatency(torch.full((4,), -1), torch.arange(40), seconds, 0.0, (4,), (16, 32, 40), 16)
    table = LatencyTable((layer,), 0.0)
    fractions = []
    for count in (1, 16, 17, 32, 33, 40):
        mask = torch.ones(41, dtype=torch.bool)
        mask[count:40] = False
        fractions.append(3 * table.fraction(mask))
    assert fractions == pytest.approx([1, 1, 2, 2, 3, 3])


def test_what_lies_in_a_block_goes_with_it() -> None:
    layer = LayerLatency(
        torch.full((4,), -1), torch.full((4,), -1), torch.ones(1, 1).double(), 1.0, (4,), (4,), block=1
    )
    table = LatencyTable((layer, LayerLatency(layer.inputs, layer.outputs, layer.seconds, 0.0, (4,), (4,))), 1.0)
    assert table.fraction(torch.tensor([True, True, True])) == 1.0
    assert table.fraction(torch.tensor([True, False, True])) == 0.5


def test_time_beyond_operators_stays_with_layers_and_goes_with_blocks() -> None:
    units = torch.arange(4)
    seconds = 1e-4 * torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64)
    layer = LayerLatency(units, units, seconds, 1e-4, (2, 4), (2, 4), block=4)
    dense = LatencyTable((layer, replace(layer, block=-1)), 2e-4)
    table = with_overhead(dense, 16e-4)
    assert table.dense_seconds == pytest.approx(16e-4)  # 2e-4 beyond the operators for each layer
    mask = torch.ones(6, dtype=torch.bool)
    mask[2:4] = False
    assert table.fraction(mask) * 16 == pytest.approx(2 * (1 + 0.5 + 2) + 2)
    mask[4] = False
    assert table.fraction(mask) * 16 == pytest.approx(1 + 0.5 + 2 + 2)
    assert with_overhead(table, 1e-4).dense_seconds == with_overhead(table, None).dense_seconds == table.dense_seconds


def _layer(inputs: int, outputs: int, seconds: float, weight_bytes: int) -> LayerLatency:
    """A layer without units among its inputs whose time does not depend on its size while its weight is in a cache."""
    times = torch.full((2, 2), seconds, dtype=torch.float64)
    sizes = [(count // 2, count) for count in (inputs, outputs)]
    units = [torch.arange(count) for count in (inputs, outputs)]
    return LayerLatency(*units, times, 0.0, *sizes, weight_bytes=weight_bytes)


def test_the_time_of_reading_weights_goes_by_their_bytes() -> None:
    table = LatencyTable((_layer(8, 8, 1e-3, 300), _layer(8, 4, 1e-3, 100), _layer(8, 8, 0.0, 0)), 0.0)
    read = with_overhead(with_weights_read(table, sweep=10e-3, total=11e-3), 11e-3)  # 8 ms of reading, 1 ms of calls
    assert read.dense_seconds == pytest.approx(11e-3)
    mask = torch.ones(9, dtype=torch.bool)
    mask[4:8] = False  # half of the inputs of all, half of the outputs of the first, all that the second has stay
    first, second = 1 + 6 / 4, 1 + 2 / 2
    constants = 2 * MOST_CALL_SECONDS * 1e3  # of the millisecond of calls; the other half scales with the layers
    assert 11 * read.fraction(mask) == pytest.approx(1.05 * (first + second) + constants)
    assert with_weights_read(table, sweep=1e-3, total=11e-3).dense_seconds == table.dense_seconds  # all is in caches
    assert with_weights_read(table, sweep=20e-3, total=5e-3).dense_seconds == pytest.approx(5e-3)


def test_time_beyond_what_calls_take_scales_with_the_layers() -> None:
    units = torch.arange(4)
    seconds = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64)
    table = with_overhead(LatencyTable((LayerLatency(units, units, seconds, 1.0, (2, 4), (2, 4)),), 0.0), 9.0)
    mask = torch.ones(5, dtype=torch.bool)
    mask[2:4] = False
    assert table.dense_seconds == pytest.approx(9.0)
    assert table.fraction(mask) * 9 == pytest.approx(2 * 1 + 0.5, rel=1e-3)  # no constant is longer than a call
