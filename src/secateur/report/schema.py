"""report.json: the schema of a report on disk, and how a report comes into that form."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from secateur.files import Record
from secateur.files.records import Natural
from secateur.version import __version__

if TYPE_CHECKING:
    from secateur.evaluation.records import Metrics
    from secateur.report.report import Figures

Number = float | None
"""None where a number is NaN or infinite, which JSON can't say."""


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
    """One network on the examples."""

    loss: Number
    accuracy: Number
    agreement: Number
    divergence: Number
    cost: SavedCost
    latency: SavedLatency


class SavedUnits(Record, frozen=True):
    """How many units a group had, and how many were kept."""

    units: Natural
    kept: Natural


class SavedStep(Record, frozen=True):
    """What one repair gave."""

    name: str
    before: Number
    after: Number
    seen: Number
    kept: bool


class SavedDrop(Record, frozen=True):
    """What was lost where a bound was set."""

    unit: str
    asked: float
    mean: Number
    low: Number
    high: Number
    examples: Natural


class SavedEffective(Record, frozen=True):
    """MACs with channels counted up to what the device's kernels work on at once."""

    step: Natural
    dense: Natural
    left: Natural


class SavedLayerTime(Record, frozen=True):
    """Milliseconds of one module in both networks; "" for operators outside of modules."""

    name: str
    dense: float
    pruned: float


class SavedSettings(Record, frozen=True):
    """How the network was pruned: what `measure` writes into a report's settings, field by field."""

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


class SavedLayerFigures(Record, frozen=True):
    """One layer whose weight was made sparse; the fields of `LayerFigures`."""

    weights: Natural
    remaining: Natural
    structure: str
    kernel: str
    dense_ms: Number
    kernel_ms: Number


class SavedSparsity(Record, frozen=True):
    """What a method left that prunes below the unit; the fields of `SparsityFigures`."""

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
        """There is no digest to go by."""
        return True


class SavedReport(SavedReport1, frozen=True):
    """A report with the digest of what stands before it."""

    FORMAT: ClassVar[str] = "secateur report/2"

    new_biases: tuple[str, ...] = ()
    sparsity: SavedSparsity | None = None
    checksum: str = ""

    def is_whole(self, content: bytes) -> bool:
        """Whether the content has the digest that it gives."""
        return Record.is_whole(self, content)


def saved_form(report: "Figures") -> SavedReport:
    """A report as it is written; see `Report` and `Measured` for what the fields mean."""
    content = {
        "format": SavedReport.FORMAT,
        "secateur": __version__,
        "title": report.title,
        "examples": report.examples,
        "held_out": report.held_out,
        "keep": report.keep,
        "settings": report.settings,
        "dense": _measured(report.dense),
        "pruned": _measured(report.pruned),
        "new_biases": report.new_biases,
        "sparsity": None if report.sparsity is None else asdict(report.sparsity),
        "groups": {name: {"units": size, "kept": left} for name, (size, left) in report.groups.items()},
    }
    return msgspec.convert(_without_nan(content), SavedReport)


def _measured(network: "Metrics") -> Mapping[str, Any]:
    return asdict(network)


def _without_nan(value: Any) -> Any:
    """The same with None for numbers that JSON can't say."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
