"""Examples that a simulated plan is refitted on, and those that judge it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.evaluation.comparison_temperature import comparison_temperature
from secateur.evaluation.dense_outputs import MOST_ENTRIES
from secateur.evaluation.divergence import output_scales
from secateur.evaluation.holdout import split_halves, spread_microbatches
from secateur.evaluation.outputs import with_named_scores
from secateur.evaluation.targets import has_real_targets
from secateur.graph.cursor import ProgramCursor, RunState, ValuesOver, bytes_of_tensors
from secateur.graph.value_bytes import last_small_position
from secateur.masking.linear_layers import LinearLayer
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.known_rows import KnownDenseRows
from secateur.recovery.paired_run import MEMORY, PairedExecution, dense_outputs
from secateur.recovery.refit import refit_behind_cut
from secateur.recovery.ridge import Choice
from secateur.utils.collected_warnings import own_warnings_dropped

KNOWN_MEMORY = 0.25  # share of the memory
SMALL = 0.25  # share of the output's bytes, up to which values are kept where outputs are too large
LATE_BYTES = 1 << 27  # of these values
HALF = 0.5
MOST_HELD_OUT = 64


@dataclass(frozen=True, eq=False)
class Fold:
    """Examples that layers are refitted on, and those that judge the refitted network; both may be the same.

    Args:
        fitted: runs both networks on the former.
        held_out: runs both networks on the latter.
        rows_share: the fraction of the rows of a quick refit that a refit reads: folds of few examples share them.
    """

    fitted: PairedExecution
    held_out: PairedExecution
    rows_share: float = 1.0

    def refit(
        self, cut_network: EmbeddedPrunedNetwork, layers: Iterable[LinearLayer], choice: Choice | None
    ) -> PairedExecution:
        """Refit layers of a cut network, and return its execution on the examples that judge it.

        Args:
            cut_network: the cut network, whose weights are changed.
            layers: those to refit, in the order in which they run.
            choice: how they are solved for, from the rows of a quick refit; None to choose by rows held out of all.
        """
        fitted = self.fitted.fork(cut_network)
        held_out = fitted if self.held_out is self.fitted else self.held_out.fork(cut_network)
        with own_warnings_dropped():
            refit_behind_cut(fitted, layers, choice, self.rows_share)
        return held_out


def quick_execution(
    cut_network: EmbeddedPrunedNetwork, microbatches: Sequence[Batch], memory: int, rows_share: float = 1.0
) -> PairedExecution:
    """Return an execution whose quick refits share what they read of the dense network.

    Args:
        cut_network: the dense network, of which nothing is cut.
        microbatches: the examples.
        memory: the number of bytes that values between operators may take.
        rows_share: the fraction of the rows of a quick refit that is read.
    """
    sizes = [microbatch.size or 1 for microbatch in microbatches]
    known_rows = KnownDenseRows(int(MEMORY * KNOWN_MEMORY * rows_share), sizes, rows_share)
    return PairedExecution(cut_network, microbatches, memory, known_rows)


def quick_fold(fold: Fold, examples: int) -> Fold:
    """Return a fold of at most so many of the examples of another one, a third of them held out.

    Args:
        fold: the examples.
        examples: the most examples.
    """
    count = min(examples // 3, MOST_HELD_OUT)
    fitted = spread_microbatches(fold.fitted.microbatches, examples - count)
    held_out = spread_microbatches(fold.held_out.microbatches, count)
    judging = PairedExecution(fold.held_out.cut_network, held_out, fold.held_out.memory)
    return Fold(quick_execution(fold.fitted.cut_network, fitted, fold.fitted.memory), judging)


def crossed_folds(cut_network: EmbeddedPrunedNetwork, microbatches: Sequence[Batch], memory: int) -> list[Fold]:
    """Return two folds, in each of which one half of the examples judges what is refitted on the other half.

    Examples that can't be divided serve for both in one fold.

    Args:
        cut_network: the dense network, of which nothing is cut.
        microbatches: the examples.
        memory: the number of bytes that values between operators may take.
    """
    halves = split_halves(microbatches)
    if halves is None:
        execution = quick_execution(cut_network, microbatches, memory)
        return [Fold(execution, execution)]
    first, second = (quick_execution(cut_network, half, memory // 2, HALF) for half in halves)
    return [Fold(first, second, HALF), Fold(second, first, HALF)]


def executions_of(folds: Sequence[Fold]) -> list[PairedExecution]:
    """Return the executions of folds, each once."""
    executions = (execution for fold in folds for execution in (fold.fitted, fold.held_out))
    return list({id(execution): execution for execution in executions}.values())


class DenseJudgement:
    """The dense network's outputs on the examples that judge plans, and the temperature of the comparison.

    Args:
        network: the network.
        folds: the folds of examples.
    """

    def __init__(self, network: Network, folds: Sequence[Fold]) -> None:
        self._network, self._folds = network, folds

    @cached_property
    def _outputs(self) -> list[list[Any]]:
        """The outputs by fold and microbatch; no fold where they are too large to be kept."""
        judging = [fold.held_out.microbatches for fold in self._folds]
        outputs = iter(dense_outputs(self._network, [batch for fold in judging for batch in fold], MOST_ENTRIES))
        by_fold = [list(islice(outputs, len(fold))) for fold in judging]
        return by_fold if all(by_fold) else []

    @cached_property
    def _late_states(self) -> list[list[RunState]]:
        """The last small values, by fold and microbatch; no fold where they are too large to be kept."""
        program = self._network.program
        position = last_small_position(program, SMALL)
        fixed, size, by_fold = program.fixed(), 0, list[list[RunState]]()
        for fold in self._folds:
            cursor, states = ProgramCursor(program, fold.held_out.microbatches), list[RunState]()
            for number in range(len(cursor.microbatches)):
                (start,) = cursor.start(number, (position,))
                states.append(cursor.advance(start, position, fixed))
                size += bytes_of_tensors(list(states[-1].values.values()))
                if size > LATE_BYTES:
                    return []
            by_fold.append(states)
        return by_fold

    def outputs(self, fold: int) -> Iterable[Any] | None:
        """Return the dense network's outputs on the examples held out of a fold.

        Outputs that are too large to keep, as over a vocabulary, are computed again from the last small values;
        None where these are too large as well.
        """
        if self._outputs:
            return self._outputs[fold]
        return self._from_late_states(fold) if self._late_states else None

    def _from_late_states(self, fold: int) -> Iterator[Any]:
        program = self._network.program
        cursor, fixed, end = ProgramCursor(program, ()), program.fixed(), program.position[program.nodes[-1]]
        for state in self._late_states[fold]:
            yield program.finish(ValuesOver(cursor.advance(state, end, fixed).values, fixed))

    @cached_property
    @torch.no_grad()
    def scales(self) -> list[Tensor]:
        """The mean squares of the outputs, as `output_scales` returns them; of one batch where they are too large."""
        batch, outputs = self._folds[0].held_out.microbatches[0], self._known_outputs
        scores = (with_named_scores(output, batch.has_token_scores) for output in outputs)
        return output_scales(scores, has_real_targets(batch, outputs[0]))

    @cached_property
    @torch.no_grad()
    def temperature(self) -> float:
        """The temperature at which outputs are compared where they were not fitted."""
        fold = self._folds[0]
        if fold.held_out is fold.fitted:  # what a refit leaves of class scores is what softening measures
            return comparison_temperature([])
        has_token_scores = fold.held_out.microbatches[0].has_token_scores
        return comparison_temperature(with_named_scores(output, has_token_scores) for output in self._known_outputs)

    @cached_property
    def _known_outputs(self) -> list[Any]:
        """The outputs for all batches that judge plans, or for one of them where they are too large to be kept."""
        outputs = [output for fold in self._outputs for output in fold]
        return outputs or dense_outputs(self._network, self._folds[0].held_out.microbatches[:1])
