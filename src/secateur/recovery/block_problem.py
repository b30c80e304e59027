"""A few layers and examples as a least squares problem: what is missing of what comes of the layers, and what mends it.

Solved by conjugate gradients (Polak and Ribiere 1969), preconditioned with the covariances of what each layer reads (a
last layer alone would be solved for in one step); the steps go as far as the linearised problem says.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Node

from secateur.graph.operators import arguments
from secateur.graph.program import OpOverride
from secateur.importance.activation_taps import straight_through
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.paired_run import PairedExecution, Values, value_of
from secateur.recovery.reconstruction_terms import Covariance, SharedTargets
from secateur.recovery.refit import PrunedLayer
from secateur.recovery.ridge import RegressionMoments
from secateur.utils.dtypes import widest_type

GAIN = 0.02
FIRST_LENGTH = 1e-2


class BlockProblem:
    """A few layers and the examples: a least squares problem.

    Args:
        lockstep: both networks.
        parts: what stays of the layers, the first one first.
        compared: those of which it is compared what comes of them.
        shared: what several such problems have in common.
    """

    def __init__(
        self,
        lockstep: PairedExecution,
        parts: Sequence[PrunedLayer],
        compared: Sequence[LinearLayer],
        shared: SharedTargets,
    ) -> None:
        self.within, self.parts = lockstep.within, parts
        program = self.within.network.program
        self.start = program.position[parts[0].layer.node]
        self.stop = 1 + max(program.position[shared.aims[layer].seen] for layer in compared)
        self.handlers = {**straight_through(program), **self.within.handlers()}
        self.sizes = [cell.size or 1 for cell in lockstep.cells]
        shared.advance(self.within, self.stop)
        self.cells = list(lockstep.cut_before(parts[0].layer.node))
        self.anchors = [shared.anchors[part.layer] for part in parts if part.layer in compared]
        covariances = shared.covariances
        covariances.update(self._factors([part for part in parts if part.layer not in covariances]))
        self.factors = [covariances[part.layer] for part in parts]

    def _factors(self, parts: Sequence[PrunedLayer]) -> dict[LinearLayer, Covariance]:
        """Of the covariances of what these layers read."""
        if not parts:
            return {}
        own, examples = self.within.fixed(), sum(self.sizes)
        read = [node for part in parts for node in part.layer.node.all_input_nodes]
        totals: dict[PrunedLayer, RegressionMoments] = {}
        for cell, cut in enumerate(self.cells):
            values = self._run({**own, **cut}, self.handlers, read)
            for part in parts:
                x = value_of(values, own, arguments(part.layer.node)[part.layer.argument])
                rows, _ = part.read(x, self.sizes[cell], math.ceil(part.few_rows / examples), cell)
                moments = RegressionMoments.of(rows, rows[..., :0])
                totals[part] = totals[part] + moments if part in totals else moments
        return {part.layer: Covariance(each, part.has_constant) for part, each in totals.items()}

    def _run(self, values: Values, handlers: dict[Node, OpOverride], keep: Sequence[Node]) -> Values:
        return self.within.network.program.run(values, self.start, self.stop, handlers, keep=keep)

    def solve(self, most: int) -> None:
        """Change the weights of all of them, as long as a step leaves noticeably less of what is missing.

        Args:
            most: steps.
        """
        weights = [self.within.state[part.layer.weight] for part in self.parts]
        changes = [w.new_zeros(p.shape, dtype=torch.float64) for w, p in zip(weights, self.parts, strict=True)]
        best, least = changes, math.inf
        steps, slopes, direction = changes, changes, changes
        length, share = FIRST_LENGTH, 0.0
        for _ in range(most):
            before, (errors, slopes) = slopes, self._slopes(changes)
            now, old = _square(errors), steps
            if (1 - GAIN) * least < now < least:
                best, least = changes, now
                break
            steps = [factor.solve(slope) for factor, slope in zip(self.factors, slopes, strict=True)]
            share = max(_dot(steps, slopes) - _dot(steps, before), 0.0) / max(_dot(old, before), 1e-300)
            share = share if now < least else 0.0  # else it starts anew
            if now < least:
                best, least = changes, now
            direction = [step + share * last for step, last in zip(steps, direction, strict=True)]
            length = self._length(changes, direction, errors, length)
            if not length > 0:
                break
            changes = _moved(changes, direction, length)
        if changes is not best and self._errors(changes) < least:
            best = changes
        for part, change in zip(self.parts, best, strict=True):
            part.write(self.within, change)

    def _length(
        self, changes: Sequence[Tensor], direction: Sequence[Tensor], errors: Sequence[Tensor], tried: float
    ) -> float:
        """How far along a direction least is missing, by what a step of the last length turns in every second cell."""
        turns, rise = 0.0, 0.0
        with torch.no_grad():
            weights = self._weights(_moved(changes, direction, tried))
            for number in range(0, len(self.cells), 2):
                after = self._missing(number, weights)
                before = errors[number * len(self.anchors) : (number + 1) * len(self.anchors)]
                turned = [new - old for new, old in zip(after, before, strict=True)]
                rise += sum(_sum(old * turn) for old, turn in zip(before, turned, strict=True))
                turns += _square(turned)
        return -rise * tried / max(turns, 1e-300)

    def _slopes(self, changes: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """What is missing, and along which changes its square falls."""
        found: list[Tensor] = []
        with torch.enable_grad():  # the weights are worked out once, and their slopes are added up over cells
            leaves = [change.detach().requires_grad_() for change in changes]
            weights = self._weights(leaves)
            own = [each.detach().requires_grad_() for each in weights]
            totals = [torch.zeros_like(each, dtype=torch.float64) for each in own]
            for number in range(len(self.cells)):
                errors = self._missing(number, own)
                half = sum((each.square().sum() for each in errors), torch.zeros(())) / 2
                slopes = torch.autograd.grad(half, own, materialize_grads=True)
                found += [each.detach() for each in errors]
                totals = [total.sub_(slope) for total, slope in zip(totals, slopes, strict=True)]
            sums = [total.to(each) for total, each in zip(totals, weights, strict=True)]
            return found, list(torch.autograd.grad(weights, leaves, sums, materialize_grads=True))

    def _errors(self, changes: Sequence[Tensor]) -> float:
        """The square of what is missing, over all cells."""
        with torch.no_grad():
            weights = self._weights(changes)
            return sum(_square(self._missing(number, weights)) for number in range(len(self.cells)))

    def _weights(self, changes: Sequence[Tensor]) -> list[Tensor]:
        """The weights after changes, without what is cut, and then what is added to constants, layer by layer."""
        weights, constants = list[Tensor](), list[Tensor]()
        for part, change in zip(self.parts, changes, strict=True):
            whole = part.weight(self.within.state[part.layer.weight], change)
            narrow = self.within.compact_layer(part.layer.node)
            weights.append(whole if narrow is None else narrow.weight_of(whole))
            if part.has_constant:
                constants.append(part.added(change).to(whole.dtype))
        return weights + constants

    def _missing(self, number: int, weights: Sequence[Tensor]) -> list[Tensor]:
        """What is missing for a cell with weights and constants as `_weights` gives them."""
        state, handlers = dict(self.within.state), dict(self.handlers)
        constants = iter(weights[len(self.parts) :])
        for part, weight in zip(self.parts, weights, strict=False):
            layer = part.layer
            state[layer.weight] = weight
            if part.has_constant:  # here and not in a batch norm's mean, by which there are no slopes
                handlers[layer.node] = self.within.adding(
                    handlers.get(layer.node), next(constants), layer.dim, layer.outputs
                )
        values = {**replace(self.within, state=state).fixed(), **self.cells[number]}
        values = self._run(values, handlers, [anchor.aim.seen for anchor in self.anchors])
        return [anchor.error(number, values) for anchor in self.anchors]


def _moved(changes: Sequence[Tensor], direction: Sequence[Tensor], length: float) -> list[Tensor]:
    return [change + length * each for change, each in zip(changes, direction, strict=True)]


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    return sum(float((a * b).sum()) for a, b in zip(left, right, strict=True))


def _square(errors: Sequence[Tensor]) -> float:
    return sum(_sum(each.square()) for each in errors)


def _sum(values: Tensor) -> float:
    return float(values.sum(dtype=widest_type(values)))
