"""A few layers and examples as a least squares problem: what is missing of what comes of the layers, and what mends it.

Solved by conjugate gradients (Polak and Ribiere 1969), preconditioned with the covariances of what each layer reads (a
last layer alone would be solved for in one step); the steps go as far as the linearised problem says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.importance.sites import differentiable
from secateur.network.layers import Layer
from secateur.network.program import Handler, arguments, at_least_single
from secateur.recovery.aim import Aim, aim_of
from secateur.recovery.lockstep import Lockstep, Values, value_of
from secateur.recovery.refit import Part
from secateur.recovery.solve import Moments
from secateur.recovery.within import Within, adding

STEPS = 10
RIDGE = 1e-3
FIRST_LENGTH = 1e-2
EXAMPLES = 128


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
        wanted = [at_least_single(each.index_select(axis, stays)) for each in dense]
        least = [torch.where(each <= aim.low, -math.inf, each.clamp(max=aim.high)) for each in wanted]
        most = [torch.where(each >= aim.high, math.inf, each.clamp(min=aim.low)) for each in wanted]
        rows = torch.cat([each.movedim(axis, -1).reshape(-1, len(stays)) for each in wanted])
        return Anchor(aim, axis, stays, least, most, (float(rows.var(0).sum()) * len(rows) + 1e-12) ** -0.5)

    def error(self, cell: int, values: Values) -> Tensor:
        """What is missing for a cell, nothing where the nonlinearity behind cuts it off."""
        found = at_least_single(values[self.aim.seen].index_select(self.axis, self.stays))
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
        self.cells, self.sizes = self._chosen(lockstep)
        nodes = [aim.seen for aim in aims.values()]
        wanted = [self._run({**program.fixed(), **dense}, passed, nodes) for dense, _ in self.cells]
        self.anchors = [
            Anchor.of(part, aim, self.within, [values[aim.seen] for values in wanted]) for part, aim in aims.items()
        ]
        self.factors = self._factors()

    def _chosen(self, lockstep: Lockstep) -> tuple[list[tuple[Values, Values]], list[int]]:
        """As many cells as give rows enough, of examples enough: places of one example are often alike. Their sizes."""
        layer = self.parts[0].layer
        rows = max(part.most_rows for part in self.parts)
        found, sizes = [], list[int]()
        for cell, dense, cut in lockstep.before(layer.node):
            found.append((dense, cut))
            sizes.append(lockstep.cells[cell].size or 1)
            x = value_of(cut, self.within.fixed(), arguments(layer.node)[layer.argument])
            rows -= sizes[-1] * layer.places(x, sizes[-1]).count
            if rows <= 0 and sum(sizes) >= EXAMPLES:
                break
        return found, sizes

    def _factors(self) -> list[Any]:
        """Of the covariances of what each layer reads."""
        own, examples = self.within.fixed(), sum(self.sizes)
        read = [node for part in self.parts for node in part.layer.node.all_input_nodes]
        totals: dict[Part, Moments] = {}
        for cell, (_, cut) in enumerate(self.cells):
            values = self._run({**own, **cut}, self.handlers, read)
            for part in self.parts:
                x = value_of(values, own, arguments(part.layer.node)[part.layer.argument])
                rows, _ = part.read(x, self.sizes[cell], math.ceil(part.most_rows / examples), cell)
                made = Moments.of(rows, rows[..., :0])
                totals[part] = totals[part] + made if part in totals else made
        regular = {part: each.penalised(RIDGE, part.has_constant) / each.rows for part, each in totals.items()}
        return [torch.linalg.lu_factor(regular[part]) for part in self.parts]

    def _run(self, values: Values, handlers: dict[Node, Handler], keep: Sequence[Node]) -> Values:
        return self.within.network.program.run(values, self.start, self.stop, handlers, keep=keep)

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
        state = dict(self.within.state)
        handlers = dict(self.handlers)
        for part, change in zip(self.parts, changes, strict=True):
            layer = part.layer
            state[layer.weight] = part.weight(state[layer.weight], change)
            if part.has_constant:  # here and not in a batch norm's mean, by which there are no slopes
                handlers[layer.node] = adding(handlers.get(layer.node), part.added(change), layer.dim)
        values = {**replace(self.within, state=state).fixed(), **self.cells[number][1]}
        nodes = [anchor.aim.seen for anchor in self.anchors]
        values = self._run(values, handlers, nodes)
        return [anchor.error(number, values) for anchor in self.anchors]


def _moved(changes: Sequence[Tensor], direction: Sequence[Tensor], length: float) -> list[Tensor]:
    return [change + length * each for change, each in zip(changes, direction, strict=True)]


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    return sum(float((a * b).sum()) for a, b in zip(left, right, strict=True))


def _square(errors: Sequence[Tensor]) -> float:
    return sum(float(each.double().square().sum()) for each in errors)
