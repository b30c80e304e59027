"""pivot.json: where the blocks of each layer lie; the schema, and what must hold of it and the weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Protocol

import msgspec
import torch
from torch import Tensor

from secateur.errors import StorageError
from secateur.files import Record, read_record
from secateur.files.records import CanonicalRecord, Fraction, Natural

PIVOT = "pivot.json"
Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class PivotedWeight(Protocol):
    """One layer's blocks, as `PivotedLayer` has them."""

    @property
    def blocks(self) -> Tensor:
        """The positions of the blocks."""
        ...

    @property
    def gather(self) -> Tensor | None:
        """The order in which inputs are gathered, if any."""
        ...

    @property
    def retained(self) -> float:
        """The retained fraction of the weight's absolute sum."""
        ...


class SavedLayer(Record, frozen=True):
    """One layer's blocks; the fields of `PivotedLayer`."""

    blocks: list[list[Annotated[int, msgspec.Meta(ge=0, le=1)]]]
    gather: list[Natural] | None
    retained: Fraction


class SavedPivot1(CanonicalRecord, frozen=True):
    """pivot.json of version 0.7."""

    FORMAT: ClassVar[str] = "secateur pivot 1"

    format: str
    shape: tuple[Side, Side]
    density: Fraction
    layers: dict[str, SavedLayer]
    checksum: str


class SavedPivot(Record, frozen=True):
    """pivot.json."""

    FORMAT: ClassVar[str] = "secateur pivot/2"

    format: str
    shape: tuple[Side, Side]
    density: Fraction
    layers: dict[str, SavedLayer]
    checksum: str = ""


def saved_pivot(shape: tuple[int, int], density: float, layers: Mapping[str, PivotedWeight]) -> SavedPivot:
    """Return the record of some blocks."""
    saved_layers = {
        name: SavedLayer(
            layer.blocks.long().tolist(),
            None if layer.gather is None else layer.gather.tolist(),
            min(max(layer.retained, 0.0), 1.0),
        )
        for name, layer in layers.items()
    }
    return SavedPivot(SavedPivot.FORMAT, shape, density, saved_layers)


def read_pivot(path: Path) -> SavedPivot | SavedPivot1:
    """Read pivot.json.

    Raises:
        StorageError: the file is missing, cut off, altered, or of another format.
    """
    return read_record(path, (SavedPivot, SavedPivot1))


def check_pivot(record: SavedPivot | SavedPivot1, tensors: Mapping[str, Tensor]) -> None:
    """Check that blocks belong to some weights.

    Raises:
        StorageError: The blocks are not those of these weights: a weight is missing, has another form, or is not zero
            outside of them.
    """
    for name, layer in record.layers.items():
        weight = tensors.get(name)
        if weight is None or weight.dim() < 2:
            raise StorageError(f"the network has no weight {name!r} that could have blocks")
        rows, columns = weight.shape[:2]
        grid = tuple(math.ceil(length / side) for length, side in zip((rows, columns), record.shape, strict=True))
        if len(layer.blocks) != grid[0] or any(len(row) != grid[1] for row in layer.blocks):
            raise StorageError(f"the blocks of {name} are not {grid[0]} x {grid[1]}, as its shape asks for")
        if layer.gather is not None and sorted(layer.gather) != list(range(columns)):
            raise StorageError(f"the gather of {name} is no order of its {columns} inputs")
        if bool((weight.reshape(rows, columns, -1)[~_kept_entries(layer, record.shape, rows, columns)] != 0).any()):
            raise StorageError(f"{name} is not zero outside of its blocks")


def _kept_entries(layer: SavedLayer, shape: tuple[int, int], rows: int, columns: int) -> Tensor:
    """Return the entries of a weight's matrix that lie in blocks (rows, columns)."""
    blocks = torch.tensor(layer.blocks, dtype=torch.bool)
    is_kept = blocks[torch.arange(rows) // shape[0]][:, torch.arange(columns) // shape[1]]
    if layer.gather is None:
        return is_kept
    return torch.zeros_like(is_kept).index_copy(1, torch.tensor(layer.gather), is_kept)
