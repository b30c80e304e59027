"""The schema of report.json, and the conversion of a report to it."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import msgspec

from secateur.files import Record
from secateur.files.records import Natural
from secateur.report.figures import Figures
from secateur.version import __version__

Number = float | None
"""A number, or None in place of NaN and infinity, which JSON has no form for."""


class SavedCost(Record, frozen=True):
    """Parameters, MACs and bytes."""

    params: Natural
    macs: Natural
    bytes: Natural


class SavedLatency(Record, frozen=True):
    """Milliseconds for one batch."""

    batch: Natural
    median: float
    lower: float
    upper: float


class SavedMeasured(Record, frozen=True):
    """The metrics of one network."""

    loss: Number
    accuracy: Number
    agreement: Number
    divergence: Number
    cost: SavedCost
    latency: SavedLatency
    metric: Number = None


class SavedChange(Record, frozen=True):
    """The mean change of a measure and half the width of its 95 % interval."""

    mean: Number
    half_width: Number


class SavedUnits(Record, frozen=True):
    """The numbers of units of a group before and after, and their kind."""

    units: Natural
    kept: Natural
    kind: str = ""


class SavedStep(Record, frozen=True):
    """The outcome of one repair."""

    name: str
    before: Number
    after: Number
    seen: Number
    kept: bool
    temperature: float = 1.0
    training: str = ""


class SavedDrop(Record, frozen=True):
    """The change of the bounded metric."""

    unit: str
    asked: float
    mean: Number
    low: Number
    high: Number
    examples: Natural


class SavedEffective(Record, frozen=True):
    """MACs with channels rounded up to the step of the device's kernels."""

    step: Natural
    dense: Natural
    left: Natural


class SavedLayerTime(Record, frozen=True):
    """Milliseconds of one module in both networks; "" for operators outside of modules."""

    name: str
    dense: float
    pruned: float


class SavedGeneration(Record, frozen=True):
    """The times of a phase of text generation with a batch of one."""

    phase: str
    length: Natural
    dense: SavedLatency
    pruned: SavedLatency


class SavedSettings(Record, frozen=True):
    """The settings of a report, as `measure_networks` writes them."""

    by: str
    note: str
    seed: int
    threads: Natural
    drop: SavedDrop | None
    repairs: list[SavedStep]
    left_out: tuple[str, ...] = ()
    effective: SavedEffective | None = None
    notes: tuple[str, ...] = ()
    layers: tuple[SavedLayerTime, ...] = ()
    speed: str = ""
    runtime: str = "eager"
    warnings: tuple[str, ...] = ()
    metric: str = ""
    inputs: str = ""
    generation: SavedGeneration | None = None


class SavedLayerFigures(Record, frozen=True):
    """One layer with a sparse weight; the fields of `LayerFigures`."""

    weights: Natural
    remaining: Natural
    structure: str
    kernel: str
    dense_ms: Number
    kernel_ms: Number


class SavedSparsity(Record, frozen=True):
    """The sparse weights of a method below the unit; the fields of `SparsityFigures`."""

    layers: dict[str, SavedLayerFigures]
    masked: SavedLatency
    ratios: dict[str, float]
    notes: tuple[str, ...]


class SavedReport1(Record, frozen=True):
    """A report as version 0.7 wrote it, without a digest."""

    FORMAT: ClassVar[str] = "secateur report 1"

    format: str
    secateur: str
    title: str
    examples: Natural
    held_out: bool
    keep: dict[str, float]
    settings: SavedSettings
    dense: SavedMeasured
    pruned: SavedMeasured
    groups: dict[str, SavedUnits]

    def is_whole(self, content: bytes) -> bool:
        """Return True: the form has no digest."""
        return True


class SavedReport(SavedReport1, frozen=True):
    """A report with the digest of its content."""

    FORMAT: ClassVar[str] = "secateur report/2"

    new_biases: tuple[str, ...] = ()
    sparsity: SavedSparsity | None = None
    changes: dict[str, SavedChange] = msgspec.field(default_factory=dict)
    checksum: str = ""

    def is_whole(self, content: bytes) -> bool:
        """Check the digest of the content."""
        return Record.is_whole(self, content)


def saved_form(report: Figures) -> SavedReport:
    """Convert a report to its form on disk."""
    content = {
        "format": SavedReport.FORMAT,
        "secateur": __version__,
        "title": report.title,
        "examples": report.examples,
        "held_out": report.held_out,
        "keep": report.keep,
        "settings": report.settings,
        "dense": asdict(report.dense),
        "pruned": asdict(report.pruned),
        "new_biases": report.new_biases,
        "sparsity": None if report.sparsity is None else asdict(report.sparsity),
        "changes": {name: asdict(change) for name, change in report.changes.items()},
        "groups": {
            name: {"units": size, "kept": kept, "kind": report.kinds.get(name, "")}
            for name, (size, kept) in report.groups.items()
        },
    }
    return msgspec.convert(_without_nan(content), SavedReport)


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinity by None."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
