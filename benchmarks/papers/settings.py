"""What every experiment is told, and the rows that it gives."""

from dataclasses import dataclass
from pathlib import Path

Row = dict[str, object]


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
