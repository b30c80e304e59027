"""A few layers and examples as a nonlinear least squares problem.

It is solved by conjugate gradients (Polak and Ribiere 1969), preconditioned with the covariances of the inputs of each
layer. A last layer alone would be solved in one step. The linearised problem gives the length of each step.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from secateur.graph.cursor import ValuesOver
from secateur.masking.linear_layers import LinearLayer
from secateur.masking.straight_through import straight_through
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
        pruned_layers: the layers, in the order in which they run.
        compared_layers: those whose outputs are compared with the dense network's.
        shared: the targets and covariances that several problems share.
    """

    def __init__(
        self,
        execution: PairedExecution,
        pruned_layers: Sequence[PrunedLayer],
        compared_layers: Sequence[LinearLayer],
        shared: SharedTargets,
    ) -> None:
        self.cut_network, self.pruned_layers = execution.cut_network, pruned_layers
        program = self.cut_network.network.program
        self.start = program.position[pruned_layers[0].layer.node]
        self.stop = 1 + max(program.position[shared.contexts[layer].pre_activation] for layer in compared_layers)
        self.handlers = {**straight_through(program), **self.cut_network.handlers()}
        self.sizes = [microbatch.size or 1 for microbatch in execution.microbatches]
        shared.advance(self.cut_network, self.stop)
        self.microbatches = list(execution.cut_before(pruned_layers[0].layer.node))
        self.terms = [
            shared.terms[pruned_layer.layer] for pruned_layer in pruned_layers if pruned_layer.layer in compared_layers
        ]
        self.covariances = shared.covariances
        unknown = [pruned_layer for pruned_layer in pruned_layers if pruned_layer.layer not in self.covariances]
        factors = {layer: term.factors for layer, term in shared.terms.items()}
        self.unknown = CovarianceSums(unknown, self.cut_network, self.sizes, factors)  # added up by the first run
        self.layers = [FoldedLayer.of(pruned_layer, self.cut_network) for pruned_layer in pruned_layers]
        self.fixed = self.cut_network.fixed(self.start)

    def solve(self, most_steps: int) -> None:
        """Change the weights of all layers, as long as a step reduces the error noticeably.

        Args:
            most_steps: the largest number of steps.
        """
        for pruned_layer, change in zip(self.pruned_layers, self._best_changes(most_steps), strict=True):
            pruned_layer.write(self.cut_network, change)

    def _best_changes(self, most_steps: int) -> Sequence[Tensor]:
        """Run the steps, and return the changes of the weights with the smallest error."""
        changes = [
            self.cut_network.state.compact(pruned_layer.layer.weight).new_zeros(pruned_layer.shape, dtype=torch.float64)
            for pruned_layer in self.pruned_layers
        ]
        best, least_error, least_probe_error, length = changes, math.inf, math.inf, FIRST_LENGTH
        direction = ConjugateDirection(changes)
        for _ in range(most_steps):
            error, errors, slopes = self._slopes(changes)
            if (1 - GAIN) * least_error < error < least_error or error < ROUNDING:
                best, least_error = changes, error
                break
            is_nearer, pairs = error < least_error, zip(self.pruned_layers, slopes, strict=True)
            solutions = [self.covariances[pruned_layer.layer].solve(slope) for pruned_layer, slope in pairs]
            direction.turn(solutions, slopes, starts_anew=not is_nearer)
            length, gain, probe_error = self._length(changes, direction.steps, errors, length)
            best, least_error, least_probe_error = (
                (changes, error, probe_error) if is_nearer else (best, least_error, least_probe_error)
            )
            changes = list(step_along(changes, direction.steps, length)) if length > 0 else changes
            if not length > 0 or gain < GAIN:
                break
        return changes if changes is not best and self._squared_error(changes, PROBED) < least_probe_error else best

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
            for number, old_errors in zip(range(0, len(self.microbatches), PROBED), errors, strict=True):
                error_changes = [
                    new.sub_(old) for new, old in zip(self._errors_of(number, tensors), old_errors, strict=True)
                ]
                rise += self._sum(old * turn for old, turn in zip(old_errors, error_changes, strict=True))
                turns += self._sum(turn.square_() for turn in error_changes)
                square += self._sum(old.square_() for old in old_errors)
        turns = max(turns, 1e-300)
        return -rise * probe_length / turns, rise**2 / turns / max(square, 1e-300), square

    def _slopes(self, changes: Sequence[Tensor]) -> tuple[float, list[Errors], list[Tensor]]:
        """Compute the sum of squared errors, the errors of every second microbatch, and the slopes by the changes."""
        total, probed_errors = 0.0, list[Errors]()
        with torch.enable_grad():  # the weights are worked out once, and their slopes are added up over microbatches
            leaves = [change.detach().requires_grad_() for change in changes]
            tensors = self._tensors(leaves)
            weight_leaves = [tensor.detach().requires_grad_() for tensor in tensors]
            slopes = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in weight_leaves]
            for number in range(len(self.microbatches)):
                outputs, errors = self._outputs_and_errors(number, weight_leaves, self.unknown)
                pairs = zip(self.terms, errors, strict=True)
                directions = [term.direction(number, error) for term, error in pairs]
                for slope, microbatch_slope in zip(slopes, gradient(outputs, weight_leaves, directions), strict=True):
                    slope.add_(microbatch_slope)
                total += self._sum(error.square() for error in errors)
                probed_errors += [errors] if number % PROBED == 0 else []
            self.covariances.update(self.unknown.take())
            has_constant = [layer.pruned_layer.has_constant for layer in self.layers]
            return total, probed_errors, slopes_by_changes(leaves, tensors, slopes, has_constant)

    def _squared_error(self, changes: Sequence[Tensor], stride: int = 1) -> float:
        """Compute the sum of squared errors of all microbatches, or of every second or third one."""
        with torch.no_grad():
            tensors = self._tensors(changes)
            microbatches = range(0, len(self.microbatches), stride)
            return sum(
                self._sum(error.square_() for error in self._errors_of(microbatch, tensors))
                for microbatch in microbatches
            )

    def _sum(self, squares: Iterable[Tensor]) -> float:
        """Add up products of errors, each in the measure of its layer."""
        return sum(term.weight * float(values.sum()) for term, values in zip(self.terms, squares, strict=True))

    def _tensors(self, changes: Iterable[Tensor]) -> list[Tensor]:
        """Return the weights after changes, in compact form, then the constants, layer by layer."""
        pairs = [layer.tensors(change) for layer, change in zip(self.layers, changes, strict=True)]
        return [weight for weight, _ in pairs] + [constant for _, constant in pairs if constant is not None]

    def _errors_of(self, number: int, tensors: Sequence[Tensor]) -> Errors:
        """Compute the errors of a microbatch with weights and constants as `_tensors` returns them."""
        return self._outputs_and_errors(number, tensors)[1]

    def _outputs_and_errors(
        self, number: int, tensors: Sequence[Tensor], sums: CovarianceSums | None = None
    ) -> tuple[list[Tensor], Errors]:
        """Compute the outputs of a microbatch with weights and constants as `_tensors` returns them, and the errors.

        Args:
            number: of the microbatch.
            tensors: the weights and constants.
            sums: the rows that some layers read are added to these.
        """
        weights, handlers = dict[str, Tensor](), dict(self.handlers)
        constants = iter(tensors[len(self.layers) :])
        for layer, weight in zip(self.layers, tensors, strict=False):
            weights[layer.pruned_layer.layer.weight] = weight
            constant = next(constants) if layer.pruned_layer.has_constant else None
            handlers |= layer.overrides(self.handlers, constant)
        fixed, input_nodes = self.fixed.with_tensors(weights), [] if sums is None else sums.inputs
        program, inputs = self.cut_network.network.program, ValuesOver(self.microbatches[number], fixed)
        compared_nodes = [term.context.pre_activation for term in self.terms]
        values = program.run(inputs, self.start, self.stop, handlers, keep=[*compared_nodes, *input_nodes])
        if sums is not None:
            sums.add(number, values)
        outputs = [term.output(values) for term in self.terms]
        pairs = zip(self.terms, outputs, strict=True)
        return outputs, [term.errors(number, output.detach()) for term, output in pairs]
