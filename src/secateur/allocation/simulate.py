"""Plans tried without cutting: units are masked, their consumers are refitted, and outputs are compared."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from functools import partial
from itertools import islice

import torch
from torch import Tensor
from torch.fx import Node

from secateur.allocation.simulation_fold import DenseJudgement, Fold, crossed_folds, executions_of, quick_fold
from secateur.coupling.network import Kept
from secateur.data.batch import Batch
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.holdout import spread_microbatches
from secateur.evaluation.output_pairs import OutputPair
from secateur.files.state_memo import State, StateMemo, key_of
from secateur.masking.ablation import Means
from secateur.masking.linear_layers import LinearLayer, layers_of
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import MEMORY, PairedExecution
from secateur.recovery.ridge import Choice
from secateur.utils.distributed import is_shared, process_count

COMPARING, MEASURING = Choice(1e-1, 0), Choice(1e-2, 0)
FITTED_MEMORY, HELD_OUT_MEMORY = 0.375, 0.125  # shares of the memory; forks take as much again
FIRST_FOLD, OTHER_FOLDS, ALL_FOLDS = slice(0, 1), slice(1, None), slice(0, None)


class PlanSimulator:
    """Simulate plans without cutting; each fold has examples to refit with, and others to evaluate with.

    Args:
        calibration: the traced network and the examples.
        means: the means that stand in the place of removed units if nothing is refitted; None if layers are.
        results: the divergences that an interrupted run measured, by key.
    """

    def __init__(self, calibration: Calibration, means: Means | None = None, results: StateMemo | None = None) -> None:
        self.network, self._microbatches, self._means = calibration.network, calibration.microbatches, means
        fitted = self._execution(calibration.fitted, FITTED_MEMORY)
        self.set_folds([Fold(fitted, self._execution(calibration.held_out, HELD_OUT_MEMORY))])
        self.choice: Choice | None = None  # how layers are solved for: by default as rows held out say
        self._layers = layers_of(self.network) if means is None else []
        self._results = results or StateMemo()
        self._start: Node | None = None  # the operator that the dense network is to be run to

    def _execution(self, microbatches: Sequence[Batch], memory_share: float) -> PairedExecution:
        dense = EmbeddedPrunedNetwork.of_kept(self.network, {})
        return PairedExecution(dense, microbatches, int(MEMORY * memory_share))

    def set_folds(self, folds: Sequence[Fold]) -> None:
        """Replace the folds of examples."""
        self.folds, self._judgement = folds, DenseJudgement(self.network, folds)

    @property
    def fitted(self) -> PairedExecution:
        """The examples of the first fold that plans are refitted with; three quarters by default."""
        return self.folds[0].fitted

    @property
    def held_out(self) -> PairedExecution:
        """The examples that judge these refits."""
        return self.folds[0].held_out

    def quick(self, examples: int) -> "PlanSimulator":
        """Return a simulator on at most so many examples, to compare plans.

        Layers get one ridge. Each half of the examples judges a refit on the other half, so that all of them judge and
        none judges what it was fitted to. Examples that can't be divided serve for both.
        """
        quick = self._on_examples(spread_microbatches(self._microbatches, examples), COMPARING)
        cut_network, memory = self.fitted.cut_network, self.fitted.memory + self.held_out.memory
        quick.set_folds(crossed_folds(cut_network, quick._microbatches, memory))
        return quick

    def quick_held_out(self, examples: int) -> "PlanSimulator":
        """Return a simulator on at most so many examples, a third of them held out, with one ridge for every layer.

        It compares groups with different numbers of consumers: where many layers are refitted, they fit the examples
        that they see best.

        Args:
            examples: the most examples.
        """
        fold = quick_fold(self.folds[0], examples)
        quick = self._on_examples([*fold.fitted.microbatches, *fold.held_out.microbatches], MEASURING)
        quick.set_folds([fold])
        return quick

    def _on_examples(self, microbatches: Sequence[Batch], choice: Choice) -> "PlanSimulator":
        """Return a copy on some of the examples, taken from all over them: they may be in an order of their own."""
        simulator = copy(self)
        simulator._microbatches, simulator.choice = microbatches, choice
        return simulator

    def reach(self, node: Node) -> None:
        """Let plans that change nothing before an operator start there; the dense network runs once up to it."""
        self._start = node

    @property
    def layers(self) -> list[LinearLayer]:
        """The layers that can be refitted, in the order in which they run."""
        return self._layers

    def consumers(self, name: str) -> list[LinearLayer]:
        """Return the layers that read a group's units and can be refitted."""
        return [layer for layer in self._layers if self.network[name].owns(layer.inputs)]

    @torch.no_grad()
    def outputs(
        self, kept: Kept, layers: Sequence[LinearLayer] | None = None, folds: slice = ALL_FOLDS
    ) -> Iterator[OutputPair]:
        """Yield the outputs of the dense network and of the cut, refitted one for each microbatch held out.

        Args:
            kept: the units that are kept, by group.
            layers: those to refit; all by default.
            folds: the folds of examples that are looked at.
        """
        if self._start is not None:
            for execution in executions_of(self.folds):
                execution.reach(self._start)
        self._start = None
        for number in range(len(self.folds))[folds]:
            fold = self.folds[number]
            cut_network = EmbeddedPrunedNetwork.of_kept(self.network, kept, self._means, self.fitted.cut_network.layers)
            held_out = fold.refit(cut_network, self._layers if layers is None else layers, self.choice)
            dense_side = self._judgement.outputs(number)
            pairs = held_out.outputs() if dense_side is None else zip(dense_side, held_out.cut_outputs(), strict=True)
            for batch, (dense, cut) in zip(held_out.microbatches, pairs, strict=True):
                yield OutputPair(batch, dense, cut, self._judgement.scales)

    @property
    def examples(self) -> int:
        """The number of examples, to refit with and to judge by."""
        return sum(batch.size or 1 for batch in self._microbatches)

    def divergences(
        self, kept: Kept, layers: Sequence[LinearLayer] | None = None, first_losses: Tensor | None = None
    ) -> Tensor:
        """Return the divergence of each example held out, at the temperature for comparisons, (examples,).

        Args:
            kept: the units that are kept, by group.
            layers: those that are refitted; all by default.
            first_losses: those of the first fold, if they are known.
        """
        losses = [self.divergences_of(FIRST_FOLD, kept, layers) if first_losses is None else first_losses]
        losses += [self.divergences_of(OTHER_FOLDS, kept, layers)] if len(self.folds) > 1 else []
        return torch.cat(losses)

    def divergences_of(self, folds: slice, kept: Kept, layers: Sequence[LinearLayer] | None = None) -> Tensor:
        """Return the divergences of the examples held out of some folds, (examples,)."""
        return self.recall(f"{folds}", kept, layers, partial(self._measure_divergences, kept, layers, folds))

    def _measure_divergences(self, kept: Kept, layers: Sequence[LinearLayer] | None, folds: slice) -> Tensor:
        pairs = self.outputs(kept, layers, folds)
        return torch.cat([pair.divergences(pair.small, self.temperature) for pair in pairs])

    def measure_ahead(self, plans: Iterable[Kept], shares: Sequence[slice] = (FIRST_FOLD, OTHER_FOLDS)) -> None:
        """Measure the first of these plans ahead, one in each process that shares the work."""
        next_plans = list(islice(plans, process_count() if is_shared() else 0))
        tasks = [(kept, None, folds) for folds in shares if self.folds[folds] for kept in next_plans]
        keys = [self._key(str(folds), kept, layers) for kept, layers, folds in tasks]
        computations = [partial(_numbers_state, partial(self._measure_divergences, *task)) for task in tasks]
        self._results.compute_ahead("simulated plans", dict(zip(keys, computations, strict=True)))

    @property
    def temperature(self) -> float:
        """The temperature at which outputs are compared where they were not fitted."""
        return self._judgement.temperature

    def recall(
        self, name: str, kept: Kept, layers: Sequence[LinearLayer] | None, compute: Callable[[], Tensor]
    ) -> Tensor:
        """Return numbers about a plan that were measured before, or measure them.

        Args:
            name: what the numbers are.
            kept: the units that are kept, by group.
            layers: those that are refitted; None for all.
            compute: measures the numbers.
        """
        key = self._key(name, kept, layers)
        return self._results.recall(key, partial(_numbers_state, compute))["numbers"]  # type: ignore[no-any-return]

    def _key(self, name: str, kept: Kept, layers: Sequence[LinearLayer] | None) -> str:
        names = None if layers is None else [layer.name for layer in layers]
        sizes = [len(execution.microbatches) for fold in self.folds for execution in (fold.fitted, fold.held_out)]
        return key_of(name, self.examples, *sizes, self.choice, names, self._means or {}, kept)

    def divergence(self, kept: Kept, layers: Sequence[LinearLayer] | None = None) -> float:
        """Return the mean divergence on the examples held out."""
        return float(self.divergences(kept, layers).mean())


def _numbers_state(compute: Callable[[], Tensor]) -> State:
    return {"numbers": compute()}
