"""The schema of report.json, and the conversion of a report to it."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import msgspec

from secateur.files import Record
from secateur.files.records import Natural
from secateur.report.figures import Figures
from secateur.report.saved_measures import (
    Number,
    SavedChange,
    SavedDrop,
    SavedEffective,
    SavedEffective2,
    SavedGeneration,
    SavedLatency,
    SavedLayerTime,
    SavedMeasured,
    SavedStep,
    SavedStep2,
    SavedUnits,
)
from secateur.version import __version__


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
    tokens: Natural = 0


class SavedSettings2(SavedSettings, frozen=True):
    """The settings of a report as versions before 0.14 wrote them."""

    repairs: list[SavedStep2]  # type: ignore[assignment]
    effective: SavedEffective2 | None = None  # type: ignore[assignment]


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
    settings: SavedSettings2
    dense: SavedMeasured
    pruned: SavedMeasured
    groups: dict[str, SavedUnits]

    def is_whole(self, content: bytes) -> bool:
        """Return True: the form has no digest."""
        return True


class SavedReport2(SavedReport1, frozen=True):
    """A report with the digest of its content, as versions before 0.14 wrote it."""

    FORMAT: ClassVar[str] = "secateur report/2"

    new_biases: tuple[str, ...] = ()
    sparsity: SavedSparsity | None = None
    changes: dict[str, SavedChange] = msgspec.field(default_factory=dict)
    checksum: str = ""

    def is_whole(self, content: bytes) -> bool:
        """Check the digest of the content."""
        return Record.is_whole(self, content)


class SavedReport(SavedReport2, frozen=True):
    """A report."""

    FORMAT: ClassVar[str] = "secateur report/3"

    settings: SavedSettings  # type: ignore[assignment]


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


def current_settings(settings: SavedSettings | SavedSettings2) -> dict[str, Any]:
    """Return the settings of a saved report by their names of today."""
    values: dict[str, Any] = msgspec.to_builtins(settings)
    if isinstance(settings, SavedSettings2):
        values["repairs"] = [_rename_fields(step, "seen", "fitted") for step in values["repairs"]]
        values["effective"] = values["effective"] and _rename_fields(values["effective"], "left", "kept")
    return values


def _rename_fields(fields: Mapping[str, Any], before: str, after: str) -> dict[str, Any]:
    return {after if name == before else name: value for name, value in fields.items()}
