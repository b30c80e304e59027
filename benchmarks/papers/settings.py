"""What every experiment is told, and the rows that it gives."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from provenance import provenance

Row = dict[str, object]


class Record:
    """Rows, shown as they come and written to a file, if there is one.

    Args:
        path: of the file, with one JSON object in each line.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lines: list[str] = []

    def add(self, row: Row) -> None:
        """Show a row, and write all so far."""
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}, flush=True)
        self.lines.append(json.dumps({**row, "run": provenance()}))
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("\n".join(self.lines) + "\n")


def recorded(rows: Iterable[Row], path: Path | None) -> None:
    """Show each row as it comes, and write all so far to a file, if there is one."""
    record = Record(path)
    for row in rows:
        record.add(row)


@dataclass(frozen=True)
class Settings:
    """What every experiment is told.

    Args:
        data: the folder of the data.
        dataset: its name.
        seeds: which networks, images and orders.
        quick: a minute's worth of it.
        full: as large as published, where that is too much for one core.
        weights: of the network, for other data than Fashion-MNIST.
        figures: the folder that plots are written to.
        device: where networks are trained, where an experiment can be on another than the processor.
        minutes: after which an experiment that can be stopped ends by itself.
        criteria: the only criteria that are run; all of an experiment's where there are none.
        width: the factor of VGG-16's channels, on other data than Fashion-MNIST.
        epochs: of VGG-16's training, where `weights` is not given.
        images: the numbers of images that scores are computed from, in place of those of the experiment.
    """

    data: Path
    dataset: str
    seeds: tuple[int, ...]
    quick: bool
    full: bool
    weights: Path | None
    figures: Path
    device: str = "cpu"
    minutes: float = math.inf
    criteria: tuple[str, ...] = ()
    width: float = 1.0
    epochs: float = 60
    images: tuple[int, ...] = ()

    def chosen(self, names: Sequence[str]) -> list[str]:
        """Those of an experiment's criteria that are run."""
        return [name for name in names if not self.criteria or name in self.criteria]
