"""The settings of an experiment, and the record of its rows."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rows import row_with_provenance

Row = dict[str, object]


class Record:
    """Rows that are printed as they come, and written to a file if there is one.

    Args:
        path: the file, with one JSON object in each line; None for no file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lines: list[str] = []

    def add(self, row: Row) -> None:
        """Print a row, and write all rows so far."""
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}, flush=True)
        self.lines.append(row_with_provenance(row))
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("\n".join(self.lines) + "\n")


def recorded(rows: Iterable[Row], path: Path | None) -> None:
    """Print each row as it comes, and write all rows so far to a file, if there is one."""
    record = Record(path)
    for row in rows:
        record.add(row)


@dataclass(frozen=True)
class Settings:
    """The settings of an experiment.

    Args:
        data: the folder of the data.
        dataset: the name of the data.
        seeds: the seeds of networks, images and orders.
        quick: run a minute's worth of the experiment.
        full: run the published sizes, where that is too much for one core.
        weights: the file of the network's weights, for other data than Fashion-MNIST.
        device: the device of the training, in experiments that support others than the CPU.
        minutes: the time limit of experiments that can be stopped.
        criteria: the criteria that are run; all criteria of the experiment where there are none.
        width: the factor of VGG-16's channels, on other data than Fashion-MNIST.
        epochs: the length of VGG-16's training, where `weights` is not given.
        images: the numbers of images that scores are computed from, in place of those of the experiment.
    """

    data: Path
    dataset: str
    seeds: tuple[int, ...]
    quick: bool
    full: bool
    weights: Path | None
    device: str = "cpu"
    minutes: float = math.inf
    criteria: tuple[str, ...] = ()
    width: float = 1.0
    epochs: float = 60
    images: tuple[int, ...] = ()

    def chosen(self, names: Sequence[str]) -> list[str]:
        """Return the criteria of an experiment that are run."""
        return [name for name in names if not self.criteria or name in self.criteria]
