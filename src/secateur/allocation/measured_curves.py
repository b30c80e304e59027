"""What the going of units costs, measured group by group: their readers are refitted and the output is compared."""

from collections.abc import Callable

from torch import Tensor
from tqdm import tqdm

from secateur.allocation.loss_curves import interpolate_curve
from secateur.allocation.simulate import PlanSimulator
from secateur.importance.scores import Scores

DEPTHS = (0.25, 0.5, 0.75, 0.9)


def measured_curves(
    rehearsal: PlanSimulator, scores: Scores, progress: bool = True, is_time_up: Callable[[], bool] = lambda: False
) -> dict[str, Tensor] | None:
    """For each group the divergence by how many of its units are gone, lowest scores first. (units + 1,)

    A quarter, a half, three quarters and nine tenths of one group's units go, and the layers that read them are
    refitted. Up to the group's first reader nothing changes, so that far the network runs once for all groups.

    Args:
        rehearsal: on what it is measured.
        scores: in whose order units go.
        progress: show a progress bar.
        is_time_up: asked before each group; what was measured of some groups alone is of no use.

    Returns:
        None where the time was up before all groups were measured.
    """
    network = rehearsal.network
    position = network.program.position
    first = {
        name: min((consumer.node for consumer in network.readers_of(network[name])), key=position.__getitem__)
        for name in scores
    }
    found = {}
    names = sorted(first, key=lambda name: position[first[name]])
    for name in tqdm(names, desc="curves", disable=None if progress else True, leave=False):
        if is_time_up():
            return None
        rehearsal.reach(first[name])
        size, order, consumers = network[name].size, scores[name].values.argsort(stable=True), rehearsal.consumers(name)
        points = {
            gone: rehearsal.divergence({name: order[gone:].sort().values}, consumers)
            for gone in sorted({round(size * depth) for depth in DEPTHS} - {0, size})
        }
        found[name] = interpolate_curve(points, size)
    return found
