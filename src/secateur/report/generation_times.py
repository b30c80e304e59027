"""Times of a phase of text generation, of the dense and of the small network in turn."""

from dataclasses import asdict
from typing import Any

from torch import nn

from secateur.allocation.budget import timed_phase
from secateur.coupling.plan import Plan
from secateur.data.batch import Batch
from secateur.evaluation.generation import DECODE, generation_phase
from secateur.evaluation.timing import Stopwatch, latency_of


def generation_setting(
    dense: nn.Module, small: nn.Module, plan: Plan, batch: Batch, length: int | None
) -> dict[str, Any] | None:
    """Time both networks in the phase of text generation that a budget is in; None where it is in none.

    Args:
        dense: the dense network.
        small: the network that was cut.
        plan: the plan of the cut.
        batch: the batch whose first row is continued.
        length: the number of tokens before the ones that are generated; None for those of the row.
    """
    name = timed_phase(plan.keep)
    if name is None:
        return None
    phase = generation_phase(name, dense, batch, length)
    times = Stopwatch(dense, batch, writes=plan.network.program.writes, phase=phase).time_in_turn(small)
    latencies = zip(("dense", "pruned"), (asdict(latency_of(1, milliseconds)) for milliseconds in times), strict=True)
    return {"phase": name, "length": phase.length, **dict(latencies)}


def generation_label(setting: dict[str, Any]) -> str:
    """Return the name of the times in a report.

    Examples:
        >>> generation_label({"phase": "decode_latency", "length": 256})
        'ms for a token, 256 in the cache'
    """
    length = setting["length"]
    return f"ms for a token, {length} in the cache" if setting["phase"] == DECODE else f"ms for a prompt of {length}"
