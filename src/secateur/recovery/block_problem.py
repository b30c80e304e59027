"""A few layers and examples as a nonlinear least squares problem.

Solved by conjugate gradients (Polak and Ribiere 1969), preconditioned with the covariances of what each layer reads (a
last layer alone would be solved for in one step); the steps go as far as the linearised problem says.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from secateur.graph.cursor import ValuesOver
from secateur.importance.activation_taps import straight_through
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.folded_layers import FoldedLayer
from secateur.recovery.input_covariance import CovarianceSums
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.problem_gradients import gradient, slopes_by_changes
from secateur.recovery.pruned_layer import PrunedLayer
from secateur.recovery.reconstruction_terms import SharedTargets
from secateur.recovery.tensor_lists import ConjugateDirection, step_along

GAIN = 0.05  # of the squared error: steps that remove less are the last ones
FIRST_LENGTH = 1e-2
ROUNDING = 1e-10  # of what the dense network gives: less is lacking where nothing was cut
PROBED = 2  # every second microbatch gives the length of a step, and checks the last one
Errors = list[Tensor]


class BlockProblem:
    """A least squares problem in the weights of a few layers, on the examples.

    Args:
        execution: both networks.
        parts: what stays of the layers, the first one first.
        compared: those of which it is compared what comes of them.
        shared: what several such problems have in common.
    """

    def __init__(
        self,
        execution: PairedExecution,
        pruned_layers: Sequence[PrunedLayer],
        compared: Sequence[LinearLayer],
        shared: SharedTargets,
    ) -> None:
        self.within, self.parts = execution.within, pruned_layers
        program = self.within.network.program
        self.start = program.position[pruned_layers[0].layer.node]
        self.stop = 1 + max(program.position[shared.aims[layer].pre_activation] for layer in compared)
        self.handlers = {**straight_through(program), **self.within.handlers()}
        self.sizes = [microbatch.size or 1 for microbatch in execution.microbatches]
        shared.advance(self.within, self.stop)
        self.microbatches = list(execution.cut_before(pruned_layers[0].layer.node))
        self.anchors = [
            shared.anchors[pruned_layer.layer] for pruned_layer in pruned_layers if pruned_layer.layer in compared
        ]
        self.covariances = shared.covariances
        unknown = [pruned_layer for pruned_layer in pruned_layers if pruned_layer.layer not in self.covariances]
        factors = {layer: term.factors for layer, term in shared.anchors.items()}
        self.unknown = CovarianceSums(unknown, self.within, self.sizes, factors)  # added up by the first run
        self.layers = [FoldedLayer.of(pruned_layer, self.within) for pruned_layer in pruned_layers]
        self.fixed = self.within.fixed(self.start)

    def solve(self, most: int) -> None:
        """Change the weights of all layers, as long as a step reduces the error noticeably.

        Args:
            most: steps.
        """
        for pruned_layer, change in zip(self.parts, self._best_changes(most), strict=True):
            pruned_layer.write(self.within, change)

    def _best_changes(self, most: int) -> Sequence[Tensor]:
        """Run the steps, and return the changes of the weights with the smallest error."""
        changes = [
            self.within.state.compact(pruned_layer.layer.weight).new_zeros(pruned_layer.shape, dtype=torch.float64)
            for pruned_layer in self.parts
        ]
        best, least, least_probed, length = changes, math.inf, math.inf, FIRST_LENGTH
        direction = ConjugateDirection(changes)
        for _ in range(most):
            now, errors, slopes = self._slopes(changes)
            if (1 - GAIN) * least < now < least or now < ROUNDING:
                best, least = changes, now
                break
            is_nearer, solved = now < least, zip(self.parts, slopes, strict=True)
            solutions = [self.covariances[pruned_layer.layer].solve(slope) for pruned_layer, slope in solved]
            direction.turn(solutions, slopes, starts_anew=not is_nearer)
            length, gain, probed = self._length(changes, direction.steps, errors, length)
            best, least, least_probed = (changes, now, probed) if is_nearer else (best, least, least_probed)
            changes = list(step_along(changes, direction.steps, length)) if length > 0 else changes
            if not length > 0 or gain < GAIN:
                break
        return changes if changes is not best and self._errors(changes, PROBED) < least_probed else best

    def _length(
        self, changes: Sequence[Tensor], direction: Sequence[Tensor], errors: Sequence[Errors], probe_length: float
    ) -> tuple[float, float, float]:
        """Estimate the best length of a step along a direction, and the share of the squared error that it removes.

        The squared error before the step, over every second microbatch, is the third result.

        Args:
            changes: so far.
            direction: of the step.
            errors: of every second microbatch, which are used up.
            probe_length: of a trial step; errors are taken to be linear along the direction.
        """
        turns, rise, square = 0.0, 0.0, 0.0
        with torch.no_grad():
            tensors = self._tensors(step_along(changes, direction, probe_length))
            for number, before in zip(range(0, len(self.microbatches), PROBED), errors, strict=True):
                turned = [new.sub_(old) for new, old in zip(self._errors_of(number, tensors), before, strict=True)]
                rise += self._sum(old * turn for old, turn in zip(before, turned, strict=True))
                turns += self._sum(turn.square_() for turn in turned)
                square += self._sum(old.square_() for old in before)
        turns = max(turns, 1e-300)
        return -rise * probe_length / turns, rise**2 / turns / max(square, 1e-300), square

    def _slopes(self, changes: Sequence[Tensor]) -> tuple[float, list[Errors], list[Tensor]]:
        """Compute the sum of squared errors, the errors of every second microbatch, and the slopes by the changes."""
        total, probed = 0.0, list[Errors]()
        with torch.enable_grad():  # the weights are worked out once, and their slopes are added up over microbatches
            leaves = [change.detach().requires_grad_() for change in changes]
            tensors = self._tensors(leaves)
            detached = [tensor.detach().requires_grad_() for tensor in tensors]
            slopes = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in detached]
            for number in range(len(self.microbatches)):
                outputs, errors = self._missing(number, detached, self.unknown)
                pairs = zip(self.anchors, errors, strict=True)
                directions = [anchor.direction(number, error) for anchor, error in pairs]
                for slope, of_cell in zip(slopes, gradient(outputs, detached, directions), strict=True):
                    slope.add_(of_cell)
                total += self._sum(error.square() for error in errors)
                probed += [errors] if number % PROBED == 0 else []
            self.covariances.update(self.unknown.take())
            has_constant = [layer.pruned_layer.has_constant for layer in self.layers]
            return total, probed, slopes_by_changes(leaves, tensors, slopes, has_constant)

    def _errors(self, changes: Sequence[Tensor], every: int = 1) -> float:
        """Compute the sum of squared errors of all microbatches, or of every second or third one."""
        with torch.no_grad():
            tensors = self._tensors(changes)
            microbatches = range(0, len(self.microbatches), every)
            return sum(
                self._sum(error.square_() for error in self._errors_of(microbatch, tensors))
                for microbatch in microbatches
            )

    def _sum(self, squares: Iterable[Tensor]) -> float:
        """Add up products of errors, each in the measure of its layer."""
        return sum(anchor.weight * float(values.sum()) for anchor, values in zip(self.anchors, squares, strict=True))

    def _tensors(self, changes: Iterable[Tensor]) -> list[Tensor]:
        """Return the weights after changes, in compact form, then the constants, layer by layer."""
        pairs = [layer.tensors(change) for layer, change in zip(self.layers, changes, strict=True)]
        return [weight for weight, _ in pairs] + [constant for _, constant in pairs if constant is not None]

    def _errors_of(self, number: int, tensors: Sequence[Tensor]) -> Errors:
        """Compute the errors of a microbatch with weights and constants as `_tensors` returns them."""
        return self._missing(number, tensors)[1]

    def _missing(
        self, number: int, tensors: Sequence[Tensor], sums: CovarianceSums | None = None
    ) -> tuple[list[Tensor], Errors]:
        """Compute the outputs of a microbatch with weights and constants as `_tensors` returns them, and the errors.

        Args:
            number: of the microbatch.
            tensors: the weights and constants.
            sums: the rows that some layers read are added to these.
        """
        replaced, handlers = dict[str, Tensor](), dict(self.handlers)
        constants = iter(tensors[len(self.layers) :])
        for layer, weight in zip(self.layers, tensors, strict=False):
            replaced[layer.pruned_layer.layer.weight] = weight
            constant = next(constants) if layer.pruned_layer.has_constant else None
            handlers |= layer.overrides(self.handlers, constant)
        fixed, read = self.fixed.with_tensors(replaced), [] if sums is None else sums.inputs
        program, before = self.within.network.program, ValuesOver(self.microbatches[number], fixed)
        compared = [anchor.aim.pre_activation for anchor in self.anchors]
        values = program.run(before, self.start, self.stop, handlers, keep=[*compared, *read])
        if sums is not None:
            sums.add(number, values)
        outputs = [anchor.output(values) for anchor in self.anchors]
        pairs = zip(self.anchors, outputs, strict=True)
        return outputs, [anchor.missing(number, output.detach()) for anchor, output in pairs]
