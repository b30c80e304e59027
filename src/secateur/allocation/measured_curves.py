"""Curves of the loss, measured group by group: consumers of removed units are refitted and the output is compared."""

from collections.abc import Callable

import torch
from torch import Tensor

from secateur.allocation.loss_curves import interpolate_curve
from secateur.allocation.simulate import PlanSimulator
from secateur.importance.scores import Scores
from secateur.utils.shared_tasks import map_tasks

DEPTHS = (0.25, 0.5, 0.75, 0.9)
REFIT = 0.5  # of the work of a run of the whole network that the refit of one layer takes, about
FORESEEN = 0.25  # share of the work after which the time of the rest is foreseen


def measured_curves(
    simulator: PlanSimulator, scores: Scores, is_time_up: Callable[[float], bool] = lambda _: False
) -> dict[str, Tensor] | None:
    """Measure for each group the divergence by the number of removed units, lowest scores first, (units + 1,).

    A quarter, a half, three quarters and nine tenths of one group's units are removed, and the layers that read them
    are refitted. Up to the group's first consumer nothing changes, so that far the network runs once for all groups.
    Units that nothing reads, such as those of a pooler that is not used, cost nothing.

    Args:
        simulator: measures divergences.
        scores: in whose order units are removed.
        is_time_up: called before each group, as curves of some groups alone are of no use, with the work that is left
            as a multiple of what was done; 0 before a quarter was done, as the first group takes longest.

    Returns:
        The curves; None where the time was up before all groups were measured.
    """
    network = simulator.network
    position, program_end = network.program.position, len(network.program.nodes)
    readers = {name: [consumer.node for consumer in network.consumers_of(network[name])] for name in scores}
    start = {name: min(nodes, key=position.__getitem__) for name, nodes in readers.items() if nodes}
    names = sorted(start, key=lambda name: position[start[name]])

    runs = {name: 1 - position[start[name]] / program_end + REFIT * len(simulator.consumers(name)) for name in names}
    total, completed_runs = sum(runs.values()), list[float]()

    def points_of(name: str) -> dict[int, float] | None:
        work = sum(completed_runs)
        if is_time_up((total - work) / work if work >= FORESEEN * total > 0 else 0.0):
            return None
        completed_runs.append(runs[name])
        simulator.reach(start[name])
        return _divergences(simulator, name, scores[name].values)

    points = map_tasks("curves of the loss by group", names, points_of, [runs[name] for name in names])
    sizes = {name: network[name].size for name in scores}
    curves = {name: torch.zeros(sizes[name] + 1, dtype=torch.float64) for name in scores if name not in start}
    for name, losses in zip(names, points, strict=True):
        if losses is not None:
            curves[name] = interpolate_curve(losses, sizes[name])
    return curves if len(curves) == len(scores) else None


def _divergences(simulator: PlanSimulator, name: str, values: Tensor) -> dict[int, float]:
    """Measure the divergence at several numbers of removed units of a group, lowest scores first."""
    size, order, consumers = len(values), values.argsort(stable=True), simulator.consumers(name)
    return {
        count: simulator.divergence({name: order[count:].sort().values}, consumers)
        for count in sorted({round(size * depth) for depth in DEPTHS} - {0, size})
    }
