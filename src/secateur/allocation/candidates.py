"""The allocations that are worth a try: equal shares, and by the increase of the loss, as estimated and as measured."""

from secateur.allocation.compared_examples import compared_examples
from secateur.allocation.config import PruneConfig
from secateur.allocation.loss_curves import Curves
from secateur.allocation.measured_curves import DEPTHS, measured_curves
from secateur.allocation.plan_sizes import Allocation
from secateur.allocation.simulate import PlanSimulator
from secateur.allocation.strategies import LOSSES
from secateur.evaluation.channel_steps import AUTO
from secateur.importance.scores import Scores

FEWEST = 8
FEWEST_MEASURED = 64
CURVES = 0.45  # share of a time budget, of what is left for planning and repairs
MEASURED = 128
MOST_PASSES = 16  # of the dense network over all examples, that curves may take where fewer examples do
MOST_WORK = 2e12
RESIDUAL = "residual"


def candidate_allocations(simulator: PlanSimulator, scores: Scores, config: PruneConfig) -> list[Allocation]:
    """Return the allocations to try.

    "auto" stands for equal shares, the loss as estimated and as measured, half-way between both, and the loss with
    residual widths whole. Without a repair that refits, it is equal shares alone.

    Args:
        simulator: measures losses.
        scores: of the units.
        config: the settings; an allocation that is named there is the only one.
    """
    if config.allocation != AUTO:
        names = (config.allocation,) if isinstance(config.allocation, str) else tuple(config.allocation)
        return [Allocation(names, config.curves, dropped=config.dropped)]
    uniform = Allocation(("uniform",), dropped=config.dropped)
    has_choice = config.refits and simulator.examples >= FEWEST and bool(scores)  # where sizes say all, there are none
    curves = _curves_to_try(simulator, scores, config) if has_choice else []
    if not curves:
        return [uniform]
    by_loss = Allocation(("loss",), curves[-1], dropped=config.dropped)
    allocations = [
        uniform,
        *(by_loss._replace(curves=curve) for curve in curves),
        by_loss._replace(names=("uniform", "loss")),
    ]
    if {simulator.network[name].kind for name in scores} > {RESIDUAL}:
        allocations.append(by_loss._replace(whole=(RESIDUAL,)))
    return allocations


def _curves_to_try(simulator: PlanSimulator, scores: Scores, config: PruneConfig) -> list[Curves | None]:
    """Return the curves to allocate by, the best last; None stands for the scores themselves.

    Measuring takes a few runs for every group. In large networks, and in deep ones, fewer examples are used, or the
    estimate alone.
    """
    curves: list[Curves | None] = [None] if scores.by in LOSSES else []
    if config.curves is not None:
        return [*curves, config.curves]
    affordable = MOST_WORK / max(simulator.network.cost().macs * len(scores), 1)
    if affordable < min(simulator.examples, FEWEST_MEASURED):
        return curves
    in_passes = 2 * MOST_PASSES * simulator.examples // (len(DEPTHS) * len(scores))  # a run starts half-way on average
    most_examples = compared_examples(simulator.network, MEASURED)
    quick = simulator.quick_held_out(min(int(affordable), most_examples, max(in_passes, FEWEST_MEASURED)))
    time, start = config.time, config.time.elapsed
    new_curves = measured_curves(quick, scores, lambda ratio: time.is_spent(CURVES, (time.elapsed - start) * ratio))
    if new_curves is None:
        config.time.leave_out("curves of the loss measured group by group")
        return curves
    return [*curves, new_curves]
