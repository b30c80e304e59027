"""A few layers and examples as a nonlinear least squares problem.

Solved by conjugate gradients (Polak and Ribiere 1969), preconditioned with the covariances of what each layer reads (a
last layer alone would be solved for in one step); the steps go as far as the linearised problem says.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Node

from secateur.errors import SecateurError
from secateur.graph.cursor import Values
from secateur.graph.operators import arguments
from secateur.graph.program import OpOverride
from secateur.importance.activation_taps import straight_through
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.paired_run import PairedExecution, value_of
from secateur.recovery.pruned_layer import PrunedLayer
from secateur.recovery.reconstruction_terms import Covariance, SharedTargets
from secateur.recovery.regression_moments import RegressionMoments
from secateur.utils.dtypes import widest_type

GAIN = 0.02
FIRST_LENGTH = 1e-2


class MissingGradientError(SecateurError):
    """An operator of the network has no gradient, by which a block could be solved for."""


class BlockProblem:
    """A least squares problem in the weights of a few layers, on the examples.

    Args:
        lockstep: both networks.
        parts: what stays of the layers, the first one first.
        compared: those of which it is compared what comes of them.
        shared: what several such problems have in common.
    """

    def __init__(
        self,
        lockstep: PairedExecution,
        pruned_layers: Sequence[PrunedLayer],
        compared: Sequence[LinearLayer],
        shared: SharedTargets,
    ) -> None:
        self.within, self.parts = lockstep.within, pruned_layers
        program = self.within.network.program
        self.start = program.position[pruned_layers[0].layer.node]
        self.stop = 1 + max(program.position[shared.aims[layer].seen] for layer in compared)
        self.handlers = {**straight_through(program), **self.within.handlers()}
        self.sizes = [cell.size or 1 for cell in lockstep.cells]
        shared.advance(self.within, self.stop)
        self.cells = list(lockstep.cut_before(pruned_layers[0].layer.node))
        self.anchors = [
            shared.anchors[pruned_layer.layer] for pruned_layer in pruned_layers if pruned_layer.layer in compared
        ]
        covariances = shared.covariances
        covariances.update(
            self._factors([pruned_layer for pruned_layer in pruned_layers if pruned_layer.layer not in covariances])
        )
        self.factors = [covariances[pruned_layer.layer] for pruned_layer in pruned_layers]

    def _factors(self, pruned_layers: Sequence[PrunedLayer]) -> dict[LinearLayer, Covariance]:
        """Compute the covariances of the inputs of these layers."""
        if not pruned_layers:
            return {}
        fixed_values, examples = self.within.fixed(), sum(self.sizes)
        read = [node for pruned_layer in pruned_layers for node in pruned_layer.layer.node.all_input_nodes]
        totals: dict[PrunedLayer, RegressionMoments] = {}
        for cell, cut in enumerate(self.cells):
            values = self._run({**fixed_values, **cut}, self.handlers, read)
            for pruned_layer in pruned_layers:
                x = value_of(values, fixed_values, arguments(pruned_layer.layer.node)[pruned_layer.layer.argument])
                rows, _ = pruned_layer.read(x, self.sizes[cell], math.ceil(pruned_layer.few_rows / examples), cell)
                before, new = totals.get(pruned_layer), (rows, rows[..., :0])
                totals[pruned_layer] = RegressionMoments.of(*new) if before is None else before.with_rows(*new)
        return {
            pruned_layer.layer: Covariance(totals.pop(pruned_layer), pruned_layer.has_constant)
            for pruned_layer in pruned_layers
        }

    def _run(self, values: Values, handlers: dict[Node, OpOverride], keep: Sequence[Node]) -> Values:
        return self.within.network.program.run(values, self.start, self.stop, handlers, keep=keep)

    def solve(self, most: int) -> None:
        """Change the weights of all layers, as long as a step reduces the error noticeably.

        Args:
            most: steps.
        """
        weights = [self.within.state[pruned_layer.layer.weight] for pruned_layer in self.parts]
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
        for pruned_layer, change in zip(self.parts, best, strict=True):
            pruned_layer.write(self.within, change)

    def _length(
        self, changes: Sequence[Tensor], direction: Sequence[Tensor], errors: Sequence[Tensor], probe_length: float
    ) -> float:
        """Estimate the best length of a step along a direction, from the errors of every second microbatch."""
        turns, rise = 0.0, 0.0
        with torch.no_grad():
            weights = self._weights(_moved(changes, direction, probe_length))
            for number in range(0, len(self.cells), 2):
                after = self._missing(number, weights)
                before = errors[number * len(self.anchors) : (number + 1) * len(self.anchors)]
                turned = [new - old for new, old in zip(after, before, strict=True)]
                rise += sum(_sum(old * turn) for old, turn in zip(before, turned, strict=True))
                turns += _square(turned)
        return -rise * probe_length / max(turns, 1e-300)

    def _slopes(self, changes: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Compute the errors, and the gradient of their squares by the changes."""
        all_errors: list[Tensor] = []
        with torch.enable_grad():  # the weights are worked out once, and their slopes are added up over cells
            leaves = [change.detach().requires_grad_() for change in changes]
            weights = self._weights(leaves)
            all_weights = [error.detach().requires_grad_() for error in weights]
            totals = [torch.zeros_like(error, dtype=torch.float64) for error in all_weights]
            for number in range(len(self.cells)):
                errors = self._missing(number, all_weights)
                slopes = _gradient(sum((error.square().sum() for error in errors), torch.zeros(())) / 2, all_weights)
                all_errors += [error.detach() for error in errors]
                totals = [total.sub_(slope) for total, slope in zip(totals, slopes, strict=True)]
            sums = [total.to(error) for total, error in zip(totals, weights, strict=True)]
            return all_errors, list(torch.autograd.grad(weights, leaves, sums, materialize_grads=True))

    def _errors(self, changes: Sequence[Tensor]) -> float:
        """Compute the errors of a microbatch."""
        with torch.no_grad():
            weights = self._weights(changes)
            return sum(_square(self._missing(number, weights)) for number in range(len(self.cells)))

    def _weights(self, changes: Sequence[Tensor]) -> list[Tensor]:
        """Return the weights after changes, in compact form, then the changes of constants, layer by layer."""
        weights, constants = list[Tensor](), list[Tensor]()
        for pruned_layer, change in zip(self.parts, changes, strict=True):
            weight = pruned_layer.weight(self.within.state[pruned_layer.layer.weight], change)
            compact = self.within.compact_layer(pruned_layer.layer.node)
            weights.append(weight if compact is None else compact.weight_of(weight))
            if pruned_layer.has_constant:
                constants.append(pruned_layer.added(change).to(weight.dtype))
        return weights + constants

    def _missing(self, number: int, weights: Sequence[Tensor]) -> list[Tensor]:
        """Compute the errors of a microbatch with weights and constants as `_weights` returns them."""
        state, handlers = dict(self.within.state), dict(self.handlers)
        constants = iter(weights[len(self.parts) :])
        for pruned_layer, weight in zip(self.parts, weights, strict=False):
            layer = pruned_layer.layer
            state[layer.weight] = weight
            if pruned_layer.has_constant:  # here and not in a batch norm's mean, by which there are no slopes
                handlers[layer.node] = self.within.adding(
                    handlers.get(layer.node), next(constants), layer.dim, layer.outputs
                )
        values = {**replace(self.within, state=state).fixed(), **self.cells[number]}
        values = self._run(values, handlers, [anchor.aim.seen for anchor in self.anchors])
        return [anchor.error(number, values) for anchor in self.anchors]


def _gradient(half: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradient of an error by the weights.

    Raises:
        MissingGradientError: an operator between them has no gradient.
    """
    try:
        return torch.autograd.grad(half, weights, materialize_grads=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as failure:
        raise MissingGradientError(str(failure)) from failure


def _moved(changes: Sequence[Tensor], direction: Sequence[Tensor], length: float) -> list[Tensor]:
    return [change + length * step for change, step in zip(changes, direction, strict=True)]


def _dot(first: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    return sum(float((a * b).sum()) for a, b in zip(first, right, strict=True))


def _square(errors: Sequence[Tensor]) -> float:
    return sum(_sum(error.square()) for error in errors)


def _sum(values: Tensor) -> float:
    return float(values.sum(dtype=widest_type(values)))
