"""What every experiment is told, and the rows that it gives."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

Row = dict[str, object]


def recorded(rows: Iterable[Row], path: Path | None) -> None:
    """Show each row as it comes, and write all so far to a file, if there is one."""
    kept = []
    for row in rows:
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}, flush=True)
        kept.append(json.dumps(row))
        if path is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join(kept) + "\n")


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
    """

    data: Path
    dataset: str
    seeds: tuple[int, ...]
    quick: bool
    full: bool
    weights: Path | None
    figures: Path
