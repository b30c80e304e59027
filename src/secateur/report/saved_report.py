"""Saved reports."""

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from secateur.coupling.cost import Cost
from secateur.errors import StorageError
from secateur.evaluation.changes import Change
from secateur.evaluation.records import Latency, Metrics
from secateur.files import read_bytes, read_record, reading
from secateur.report.figures import Figures, LayerFigures, SparsityFigures
from secateur.report.saved_measures import Number, SavedChange, SavedMeasured
from secateur.report.schema import SavedReport, SavedReport1, SavedReport2, SavedSparsity, current_settings
from secateur.report.text import report_text
from secateur.surgery.prepared_load import check_companion

REPORT = "report.json"
FOLDER_ADVICE = "give a folder that `secateur prune` or `Result.save` wrote"


def saved_report(folder: Path, as_json: bool) -> str:
    """Read a saved report and return its text or JSON.

    Raises:
        StorageError: the folder has no report, it is damaged, or it belongs to another result.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder} {'is a file' if folder.exists() else 'does not exist'}; {FOLDER_ADVICE}")
    with reading(folder) as path_of:
        try:
            record = read_record(path_of(REPORT), (SavedReport, SavedReport2, SavedReport1))
        except StorageError as failure:
            raise StorageError(f"{folder} holds no report that can be read: {failure}; {FOLDER_ADVICE}") from failure
        content = read_bytes(path_of(REPORT))
        if isinstance(record, SavedReport2):
            check_companion(folder, path_of, REPORT)
    return content.decode("utf-8").rstrip() if as_json else report_text(_figures(record))


def _figures(record: SavedReport1) -> Figures:
    return Figures(
        title=record.title,
        examples=record.examples,
        held_out=record.held_out,
        dense=_metrics_of(record.dense),
        pruned=_metrics_of(record.pruned),
        groups={name: (group.units, group.kept) for name, group in record.groups.items()},
        kinds={name: group.kind for name, group in record.groups.items() if group.kind},
        keep=record.keep,
        new_biases=record.new_biases if isinstance(record, SavedReport2) else (),
        settings=current_settings(record.settings),
        sparsity=_sparsity(record.sparsity) if isinstance(record, SavedReport2) else None,
        changes=_loaded_changes(record.changes) if isinstance(record, SavedReport2) else {},
    )


def _sparsity(record: SavedSparsity | None) -> SparsityFigures | None:
    if record is None:
        return None
    layers = {name: LayerFigures(**msgspec.structs.asdict(layer)) for name, layer in record.layers.items()}
    masked = Latency(**msgspec.structs.asdict(record.masked))
    return SparsityFigures(layers, masked, record.ratios, record.notes)


def _metrics_of(record: SavedMeasured) -> Metrics:
    cost = Cost(**msgspec.structs.asdict(record.cost))
    latency = Latency(**msgspec.structs.asdict(record.latency))
    loss, divergence = _number(record.loss), _number(record.divergence)
    return Metrics(loss, record.accuracy, record.agreement, divergence, cost, latency, record.metric, record.perplexity)


def _loaded_changes(records: Mapping[str, SavedChange]) -> dict[str, Change]:
    """Return the changes; a half width that JSON has no form for is infinite."""
    widths = {name: math.inf if change.half_width is None else change.half_width for name, change in records.items()}
    return {name: Change(_number(change.mean), widths[name]) for name, change in records.items()}


def _number(value: Number) -> float:
    return math.nan if value is None else value
