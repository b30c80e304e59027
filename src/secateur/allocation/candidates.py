"""Which allocations are worth a try: equal shares, and by what the loss grows by, as estimated and as measured."""

from typing import NamedTuple

from secateur.allocation.loss_curves import Curves
from secateur.allocation.measured_curves import measured_curves
from secateur.allocation.simulate import PlanSimulator
from secateur.allocation.strategies import LOSSES
from secateur.evaluation.channel_steps import ANY
from secateur.importance.scores import Scores
from secateur.utils.time_budget import TimeBudget

FEWEST = 8
FEWEST_MEASURED = 64
CURVES = 0.35  # share of a time budget
MEASURED = 128
MOST_WORK = 2e12
RESIDUAL = "residual"


class Allocation(NamedTuple):
    """An allocation to try.

    Args:
        names: its name, or several: half-way between them.
        curves: what the loss grows by, where they are not the scores themselves.
        target: the device whose kernels the sizes fill; "any": whatever the scores say.
        dropped: the blocks that go as a whole.
        whole: kinds of groups that lose nothing, if the budget can be met without them.
    """

    names: tuple[str, ...]
    curves: Curves | None = None
    target: str = ANY
    dropped: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


def candidate_allocations(
    rehearsal: PlanSimulator, scores: Scores, progress: bool, time: TimeBudget | None = None
) -> list[Allocation]:
    """The allocations that are worth a try: equal shares, by the loss as estimated and as measured, half-way, and with
    the widths of residual streams as they are.

    Measuring takes a few runs for every group; in large networks fewer examples must do for that, or the estimate.
    """
    time = time or TimeBudget()
    examples = rehearsal.examples
    if examples < FEWEST:
        return [Allocation(("uniform",))]
    known: list[Curves | None] = [None] if scores.by in LOSSES else []
    affordable = MOST_WORK / max(rehearsal.network.cost().macs * len(scores), 1)
    if affordable >= min(examples, FEWEST_MEASURED):
        judged = rehearsal.quick_held_out(min(int(affordable), MEASURED))
        measured = measured_curves(judged, scores, progress, lambda: time.is_spent(CURVES))
        if measured is None:
            time.leave_out("curves of the loss measured group by group")
        else:
            known.append(measured)
    if not known:
        return [Allocation(("uniform",))]
    best = known[-1]
    ways = [
        Allocation(("uniform",)),
        *(Allocation(("loss",), curves) for curves in known),
        Allocation(("uniform", "loss"), best),
    ]
    if {rehearsal.network[name].kind for name in scores} > {RESIDUAL}:
        ways.append(Allocation(("loss",), best, whole=(RESIDUAL,)))
    return ways
