"""The measurements of report.json: costs, times, metrics, changes, and the outcomes of repairs."""

from secateur.files import Record
from secateur.files.records import Natural

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
    perplexity: Number = None


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
    fitted: Number
    kept: bool
    temperature: float = 1.0
    training: str = ""


class SavedStep2(Record, frozen=True):
    """The outcome of one repair as versions before 0.14 wrote it."""

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
    kept: Natural


class SavedEffective2(Record, frozen=True):
    """The same as versions before 0.14 wrote it."""

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
