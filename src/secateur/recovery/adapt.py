"""Layers that adapt to what those that read them need.

A refit asks of every unit that stays to give what it gave; what those gave that went is lost, but for what their
readers can make of the others. Here a layer is solved for together with its readers and theirs: so that these, from
whatever the layer's units now say, give what they gave in the dense network. That is a nonlinear least squares problem
of a few layers at a time, as in block-wise reconstruction (Li et al. 2021, for quantised networks). It is solved by
conjugate gradients, preconditioned with the covariances of what each layer reads (a last layer alone would be solved
for in one step); the steps go as far as the linearised problem says. What is missing is counted as by a refit: nothing
where the nonlinearity behind cuts it off.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from secateur.importance.sites import differentiable
from secateur.network.layers import Layer, layers_of
from secateur.network.program import arguments
from secateur.network.units import Network
from secateur.recovery.aim import Aim, aim_of
from secateur.recovery.lockstep import Lockstep, Values, value_of
from secateur.recovery.refit import MOST_ROWS, ROWS_PER_FEATURE, Part, fitting, rows_of
from secateur.recovery.solve import Moments
from secateur.recovery.within import Within, adding

STEPS = 10
DEPTH = 2
RIDGE = 1e-3
FIRST_LENGTH = 1e-2
FEWEST = 4


def adapt(lockstep: Lockstep) -> None:
    """Solve for every layer together with those that read it, in the order in which they run.

    Nothing is changed where there are too few examples to hold any out: one or two can be fitted at any cost to others.
    """
    if sum(cell.size or 1 for cell in lockstep.cells) < FEWEST:
        return
    for stretch in stretches(lockstep.within.network):
        found = {layer: fitting(layer, lockstep.within)[0] for layer in (*stretch.makers, *stretch.readers)}
        parts = {layer: part for layer, part in found.items() if part is not None}
        readers = [layer for layer in stretch.readers if layer in parts]
        if stretch.makers[0] in parts and readers:
            Local(lockstep, list(parts.values()), readers).solve()


@dataclass(frozen=True, eq=False)
class Stretch:
    """Layers that are solved for together.

    Args:
        makers: a layer, and those that make units of the same group before any of them is read.
        readers: the layers that read these units next, and those that read what these make.
    """

    makers: tuple[Layer, ...]
    readers: tuple[Layer, ...]


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


@dataclass(frozen=True, eq=False)
class Anchor:
    """Where what comes of a layer is compared with the dense network.

    Args:
        aim: what comes of the layer's output.
        axis: of its channels or features.
        stays: which of these stay.
        least, most: for each cell of examples, between what it should be.
        weight: one over the root of the sum of squares of what it should be, about the mean.
    """

    aim: Aim
    axis: int
    stays: Tensor
    least: Sequence[Tensor]
    most: Sequence[Tensor]
    weight: float

    @staticmethod
    def of(part: Part, aim: Aim, within: Within, dense: Sequence[Tensor]) -> "Anchor":
        """From what comes of the layer in the dense network, cell by cell."""
        layer = part.layer
        axis = 1 if layer.is_convolution else dense[0].dim() - 1
        stays = torch.nonzero(within.mask[layer.outputs]).flatten().to(dense[0].device)
        wanted = [each.index_select(axis, stays) for each in dense]
        least = [torch.where(each <= aim.low, -math.inf, each.clamp(max=aim.high)) for each in wanted]
        most = [torch.where(each >= aim.high, math.inf, each.clamp(min=aim.low)) for each in wanted]
        rows = torch.cat([each.movedim(axis, -1).flatten(0, -2) for each in wanted])
        return Anchor(aim, axis, stays, least, most, (float(rows.var(0).sum()) * len(rows) + 1e-12) ** -0.5)

    def error(self, cell: int, values: Values) -> Tensor:
        """What is missing for a cell, nothing where the nonlinearity behind cuts it off."""
        found = values[self.aim.seen].index_select(self.axis, self.stays)
        error: Tensor = (found.clamp(self.least[cell], self.most[cell]) - found) * self.weight
        return error


class Local:
    """A few layers and the examples: a least squares problem.

    Args:
        lockstep: both networks.
        parts: what stays of the layers, the first one first.
        compared: those of which it is compared what comes of them.
    """

    def __init__(self, lockstep: Lockstep, parts: Sequence[Part], compared: Sequence[Layer]) -> None:
        self.within, self.parts = lockstep.within, parts
        program = self.within.network.program
        aims = {part: aim_of(self.within.network, part.layer) for part in parts if part.layer in compared}
        self.start = program.position[parts[0].layer.node]
        self.stop = 1 + max(program.position[aim.seen] for aim in aims.values())
        passed = differentiable(program)
        self.handlers = {**passed, **self.within.handlers()}
        self.cells = self._chosen(lockstep)
        nodes = [aim.seen for aim in aims.values()]
        wanted = [
            program.run({**program.fixed(), **dense}, self.start, self.stop, passed, keep=nodes)
            for dense, _ in self.cells
        ]
        self.anchors = [
            Anchor.of(part, aim, self.within, [values[aim.seen] for values in wanted]) for part, aim in aims.items()
        ]
        self.factors = self._factors(lockstep)

    def _chosen(self, lockstep: Lockstep) -> list[tuple[Values, Values]]:
        """As many cells as give rows enough."""
        layer = self.parts[0].layer
        needed = max(MOST_ROWS, ROWS_PER_FEATURE * max(part.features.shape[1] for part in self.parts))
        found = []
        for cell, dense, cut in lockstep.before(layer.node):
            found.append((dense, cut))
            x = value_of(cut, self.within.fixed(), arguments(layer.node)[layer.argument])
            size = lockstep.cells[cell].size or 1
            needed -= size * layer.places(x, size).count
            if needed <= 0:
                break
        return found

    def _factors(self, lockstep: Lockstep) -> list[Any]:
        found = []
        for part in self.parts:
            total: Moments | None = None
            for rows in rows_of(lockstep.branched(), part):
                made = Moments.of(rows.features, rows.missing)
                total = made if total is None else total + made
            assert total is not None
            found.append(torch.linalg.lu_factor(total.penalised(RIDGE, part.has_constant) / total.rows))
        return found

    def solve(self) -> None:
        """Change the weights of all of them, as long as less is missing."""
        weights = [self.within.state[part.layer.weight] for part in self.parts]
        changes = [w.new_zeros(p.shape, dtype=torch.float64) for w, p in zip(weights, self.parts, strict=True)]
        best, least = changes, math.inf
        steps, slopes, direction = changes, changes, changes
        length, share = FIRST_LENGTH, 0.0
        for _ in range(STEPS):
            before, (errors, slopes) = slopes, self._slopes(changes)
            now, old = _square(errors), steps
            steps = [torch.linalg.lu_solve(*f, s) for f, s in zip(self.factors, slopes, strict=True)]
            share = max(_dot(steps, slopes) - _dot(steps, before), 0.0) / max(_dot(old, before), 1e-300)
            share = share if now < least else 0.0  # else it starts anew
            if now < least:
                best, least = changes, now
            direction = [step + share * last for step, last in zip(steps, direction, strict=True)]
            length = self._length(changes, direction, errors, length)
            if not length > 0:
                break
            changes = _moved(changes, direction, length)
        if _square(self._errors(changes)) < least:
            best = changes
        for part, change in zip(self.parts, best, strict=True):
            part.write(self.within, change)

    def _length(
        self, changes: Sequence[Tensor], direction: Sequence[Tensor], errors: Sequence[Tensor], tried: float
    ) -> float:
        """How far along a direction least is missing, by what a step of the last length turns."""
        after = self._errors(_moved(changes, direction, tried))
        turns = [(new - old).double() / tried for new, old in zip(after, errors, strict=True)]
        return -_dot([error.double() for error in errors], turns) / max(_square(turns), 1e-300)

    def _slopes(self, changes: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """What is missing, and along which changes its square falls."""
        found: list[Tensor] = []
        totals = [torch.zeros_like(change) for change in changes]
        for number in range(len(self.cells)):
            with torch.enable_grad():
                leaves = [change.float().requires_grad_() for change in changes]
                errors = self._missing(number, leaves)
                half = sum((each.square().sum() for each in errors), torch.zeros(())) / 2
                slopes = torch.autograd.grad(half, leaves, materialize_grads=True)
            found += [each.detach() for each in errors]
            totals = [total - slope.double() for total, slope in zip(totals, slopes, strict=True)]
        return found, totals

    def _errors(self, changes: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return [e for n in range(len(self.cells)) for e in self._missing(n, [c.float() for c in changes])]

    def _missing(self, number: int, changes: Sequence[Tensor]) -> list[Tensor]:
        program = self.within.network.program
        state = dict(self.within.state)
        handlers = dict(self.handlers)
        for part, change in zip(self.parts, changes, strict=True):
            layer = part.layer
            state[layer.weight] = part.weight(state[layer.weight], change)
            if part.has_constant:  # here and not in a batch norm's mean, by which there are no slopes
                handlers[layer.node] = adding(handlers.get(layer.node), part.added(change), layer.dim)
        values = {**replace(self.within, state=state).fixed(), **self.cells[number][1]}
        nodes = [anchor.aim.seen for anchor in self.anchors]
        values = program.run(values, self.start, self.stop, handlers, keep=nodes)
        return [anchor.error(number, values) for anchor in self.anchors]


def _moved(changes: Sequence[Tensor], direction: Sequence[Tensor], length: float) -> list[Tensor]:
    return [change + length * each for change, each in zip(changes, direction, strict=True)]


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    return sum(float((a * b).sum()) for a, b in zip(left, right, strict=True))


def _square(errors: Sequence[Tensor]) -> float:
    return sum(float(each.double().square().sum()) for each in errors)
