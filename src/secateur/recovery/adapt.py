"""Layers that adapt to what those that read them need.

A refit asks of every unit that stays to give what it gave; what those gave that went is lost, but for what their
readers can make of the others. Here a layer is solved for together with its readers and theirs: so that these, from
whatever the layer's units now say, give what they gave in the dense network. That is a nonlinear least squares problem
of a few layers at a time, as in block-wise reconstruction (Li et al. 2021, for quantised networks). What is missing is
counted as by a refit: nothing where the nonlinearity behind cuts it off.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import Node

from secateur.network.layers import Layer, layers_of
from secateur.network.program import arguments
from secateur.network.units import Network
from secateur.recovery.anchors import SharedTargets
from secateur.recovery.judge import spread
from secateur.recovery.local import Local
from secateur.recovery.lockstep import Lockstep
from secateur.recovery.refit import fitting

DEPTH = 2
FEWEST = 4
EXAMPLES = 192
STEPS = 4
POLISH = 3
MEMORY = 1 << 30


def adapt(lockstep: Lockstep, steps: int = STEPS, is_time_up: Callable[[], bool] = lambda: False) -> bool:
    """Solve for every layer together with those that read it, in the order in which they run.

    Cells from all over the examples are looked at, 192 examples together, or as many as what the layers give for them
    takes no more than 1 GiB of memory.

    Nothing is changed where there are too few examples to hold any out: one or two can be fitted at any cost to others.

    Args:
        lockstep: both networks.
        steps: the most for each layer.
        is_time_up: asked before each layer; those that are left when it is stay as they are.

    Returns:
        Whether there was time for all.
    """
    if sum(cell.size or 1 for cell in lockstep.cells) < FEWEST:
        return True
    remaining = list(stretches(lockstep.within.network))
    examples = min(EXAMPLES, MEMORY // max((_bytes_of(stretch) for stretch in remaining), default=1))
    lockstep = Lockstep(lockstep.within, spread(lockstep.cells, examples), lockstep.memory)
    compared = {layer for stretch in remaining for layer in stretch.readers if fitting(layer, lockstep.within)[0]}
    shared = SharedTargets(lockstep.within.network, compared, lockstep.cells)
    while remaining:
        if is_time_up():
            return False
        stretch = remaining.pop(0)
        choices = {layer: fitting(layer, lockstep.within)[0] for layer in (*stretch.makers, *stretch.readers)}
        parts = {layer: part for layer, part in choices.items() if part is not None}
        readers = [layer for layer in stretch.readers if layer in parts]
        if stretch.makers[0] in parts and readers:
            Local(lockstep, list(parts.values()), readers, shared).solve(steps)
        shared.forget_all_but({layer for each in remaining for layer in (*each.makers, *each.readers)})
    return True


@dataclass(frozen=True, eq=False)
class Stretch:
    """Layers that are solved for together.

    Args:
        makers: a layer, and those that make units of the same group before any of them is read.
        readers: the layers that read these units next, and those that read what these make.
    """

    makers: tuple[Layer, ...]
    readers: tuple[Layer, ...]


def _bytes_of(stretch: Stretch) -> int:
    """About what is kept of an example while these layers are solved for: what the makers read in both networks, and
    what should come of the readers."""
    inputs = {arguments(layer.node)[layer.argument] for layer in stretch.makers}
    return 1 + 2 * sum(_bytes(node) for node in inputs) + sum(_bytes(layer.node) for layer in stretch.readers)


def _bytes(node: Any) -> int:
    """Of one example, where the shape is known."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(value, Tensor) or not all(isinstance(length, int) for length in value.shape[1:]):
        return 0
    return math.prod(value.shape[1:]) * value.element_size()


def stretches(network: Network) -> Iterator[Stretch]:
    """Every layer that makes units with those that read them, in the order in which they run."""
    layers = layers_of(network)
    taken: set[Layer] = set()
    for layer in layers:
        makers, readers = _next(network, layer, layers)
        if layer in taken or not readers:
            continue
        taken |= set(makers)
        ring = readers
        for _ in range(DEPTH - 1):
            ring = [each for reader in ring for each in _next(network, reader, layers)[1]]
            readers = readers + ring
        yield Stretch(tuple(makers), tuple(sorted(set(readers), key=layers.index)))


def _next(network: Network, layer: Layer, layers: Sequence[Layer]) -> tuple[list[Layer], list[Layer]]:
    """A layer and others that make units of its group, and who reads them before still others do."""
    group = next((each for each in network.groups if each.owns(layer.outputs)), None)
    makers, readers = [layer], list[Layer]()
    if group is None:
        return makers, readers
    for each in layers[layers.index(layer) + 1 :]:
        if each.reads and group.owns(each.inputs):
            readers.append(each)
        if group.owns(each.outputs):
            if readers:
                break
            makers.append(each)
    return makers, readers
