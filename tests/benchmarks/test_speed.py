"""The benchmark of speed: its rows as a table, and what it times."""

import json
from pathlib import Path

import pytest
import torch
from speed import table, timing
from torch import nn

from expected_warnings import untrained_networks

pytestmark = untrained_networks


def test_rows_become_a_table(tmp_path: Path) -> None:
    speed = {"runtime": "eager", "batch": 32, "threads": 1, "ratio": 1.953, "low": 1.9, "high": 2.0}
    row = {"network": "vgg", "method": "secateur", "dense": 0.9335, "accuracy": 0.9295, "macs": 0.5, "effective": 0.47}
    rows = [
        {**row, "budget": "latency", "speeds": [speed, {**speed, "threads": 2, "ratio": 1.5}]},
        {**row, "budget": "macs", "method": "torch-pruning, round_to=16", "failure": "ValueError: none\nmore"},
    ]
    for number, content in enumerate(rows):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps(content) + "\n")
    tables = table.speed_tables(tmp_path)
    assert [line for line in tables.splitlines() if line.endswith(":")] == [
        "Half of the MACs, one thread:", "Half of the time, one thread:", "Half of the time, 2 threads:",
    ]  # fmt: skip
    assert "| VGG-like | torch-pruning, round_to=16 | ValueError: none |  |  |  |  |  |  |\n" in tables
    cells = "| VGG-like | `prune` | 50% | 47% | 92.95% (93.35%) |  | {} [1.90, 2.00] |  |  |\n"
    assert cells.format("1.95") in tables
    assert cells.format("1.50") in tables


def test_two_networks_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ROUNDS", 3)
    monkeypatch.setattr(timing, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.0)
    settings = timing.ClockSettings(("eager",), (1,), 0.0)
    rows = list(timing.measure_speeds(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 3), torch.randn(32, 3, 8, 8), settings))
    assert [(row["runtime"], row["batch"], row["threads"]) for row in rows] == [("eager", 1, 1), ("eager", 32, 1)]
    assert all(row["low"] <= row["ratio"] <= row["high"] and row["dense_ms"] > 0 for row in rows)
