"""Scores of sampled games, in numbered blocks that are added up in order."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from secateur.errors import DataError
from secateur.importance.context import CriterionContext
from secateur.importance.estimates import Sample, pool_samples, side_by_side
from secateur.importance.scores import GroupScores, Scores
from secateur.importance.shapley.auto_sampler import stopping_rule_for
from secateur.importance.shapley.config import SamplingConfig
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.jackknife import jackknife_estimate
from secateur.importance.shapley.sampling_blocks import SamplingScheme
from secateur.importance.shapley.stopping import EstimateState, Rule
from secateur.importance.shuffled_microbatches import shuffled_microbatches
from secateur.utils.distributed import broadcast_result, process_count
from secateur.utils.progress import counted
from secateur.utils.rng import generator_for
from secateur.utils.shared_tasks import map_sharded

FIRST_LOOK, GROWTH = 8, 1.5  # blocks before the rule examines the estimate first, and the factor from look to look


@dataclass(frozen=True)
class EstimationRun:
    """The common settings of all games of one run.

    Args:
        context: the network and the examples, shuffled.
        config: the user's options.
        numbers: of each microbatch the numbers of its examples in the data.
        started: the time of the start, in seconds.
    """

    context: CriterionContext
    config: SamplingConfig
    numbers: Sequence[Tensor]
    started: float

    @property
    def example_count(self) -> int:
        """The number of examples."""
        return sum(len(indices) for indices in self.numbers)


def estimation_run(context: CriterionContext, config: SamplingConfig) -> EstimationRun:
    """Start a run, with the examples shuffled unless the network takes no other batches than its own."""
    if context.network.program.batched is None:
        starts = torch.tensor([0, *(batch.size or 1 for batch in context.microbatches)]).cumsum(0).tolist()
        numbers = [torch.arange(*span) for span in pairwise(starts)]
        return EstimationRun(context, config, numbers, time.monotonic())
    pairs = shuffled_microbatches(context.microbatches, generator_for(context.seed, "cells"))
    microbatches, numbers = [batch for batch, _ in pairs], [indices for _, indices in pairs]
    return EstimationRun(replace(context, microbatches=microbatches), config, numbers, time.monotonic())


def estimate_game(
    run: EstimationRun, game: Game, name: str, scheme: SamplingScheme, time_fraction: float
) -> dict[str, GroupScores]:
    """Estimate the scores of one game's groups, continuing those of an earlier run.

    Args:
        run: the settings of the run.
        game: the game.
        name: the purpose of its draws.
        scheme: the definition of a block.
        time_fraction: the fraction of the allowed time that may have passed when the game is done.
    """
    context = run.context
    rule = stopping_rule_for(game, run.config, scheme)
    samples = _earlier_samples(context.resume_from, game, scheme)
    with counted(name, 1.0) as bar:
        for target in _block_counts(rule, scheme.fixed_blocks):
            while len(samples) < target:
                blocks = range(len(samples), min(len(samples) + process_count(), target))
                samples += map_sharded(
                    blocks, lambda block: scheme.sample(game, run.numbers, context.seed, name, block)
                )
                if rule is None:
                    bar.advance(len(samples) / target - bar.completed)
                if context.on_progress is not None:
                    context.on_progress(name, partial(_scores_by_group, run, game, samples, scheme, rule))
            if rule is None or len(samples) > target:
                continue
            progress = broadcast_result(partial(rule.progress, _state(run, samples, time_fraction)))
            if math.isnan(progress):  # it would never end
                raise DataError(f"the stopping rule {rule} gave NaN for {name}; take another, or give coalitions=")
            bar.advance(max(min(progress, 1.0) - bar.completed, 0.0))
            if progress >= 1:
                break
    return _scores_by_group(run, game, samples, scheme, rule)


def _block_counts(rule: Rule | None, fixed_blocks: int | None) -> Iterator[int]:
    """Yield the numbers of blocks after which the rule examines the estimate, or the fixed number."""
    if rule is None:
        yield fixed_blocks or 0
        return
    count = FIRST_LOOK
    while True:
        yield count
        count = math.ceil(count * GROWTH)


def _earlier_samples(resume_from: Scores | None, game: Game, scheme: SamplingScheme) -> list[Sample]:
    """Return the samples of an earlier run for the groups of a game.

    Raises:
        DataError: they were sampled by another scheme.
    """
    names = [group.name for group in game.groups]
    if resume_from is None or any(name not in resume_from for name in names):
        return []
    samples = [resume_from[name].samples for name in names]
    sampled_blocks = [blocks for blocks in samples if blocks is not None]
    if len(sampled_blocks) < len(samples):
        return []
    other = next((name for name in names if resume_from[name].layout != str(scheme)), None)
    if other is not None:
        raise DataError(
            f"the scores to resume have {other} by {resume_from[other].layout}, not by {scheme}; ask for the same "
            "estimator and kind of aggregate, or start anew"
        )
    return [side_by_side(blocks) for blocks in zip(*sampled_blocks, strict=True)]


def _evaluation_counts(samples: Sequence[Sample]) -> tuple[int, int]:
    """Return the numbers of coalitions and of evaluations of samples."""
    return sum(sample.coalitions for sample in samples), sum(sample.evaluations for sample in samples)


def _state(run: EstimationRun, samples: Sequence[Sample], time_fraction: float) -> EstimateState:
    elapsed = time.monotonic() - run.started

    def jackknife() -> tuple[Tensor, Tensor]:
        estimate = jackknife_estimate(samples, run.example_count, run.config.statistic)
        return estimate.replicates, estimate.errors_here

    fraction_of = partial(_fraction_of_time, elapsed, time_fraction)
    return EstimateState(*_evaluation_counts(samples), fraction_of, jackknife)


def _fraction_of_time(elapsed: float, time_fraction: float, seconds: float) -> float:
    """Return the fraction of a game's part of the allowed seconds that has passed."""
    return elapsed / (seconds * time_fraction)


def _scores_by_group(
    run: EstimationRun, game: Game, samples: Sequence[Sample], scheme: SamplingScheme, rule: Rule | None
) -> dict[str, GroupScores]:
    starts = torch.tensor([0, *(group.size for group in game.groups)]).cumsum(0).tolist()
    return {
        group.name: _group_scores(run, [sample.only(slice(*span)) for sample in samples], scheme, rule)
        for group, span in zip(game.groups, pairwise(starts), strict=True)
    }


def _group_scores(
    run: EstimationRun, samples: Sequence[Sample], scheme: SamplingScheme, rule: Rule | None
) -> GroupScores:
    estimate = jackknife_estimate(samples, run.example_count, run.config.statistic)
    coalitions, evaluations = _evaluation_counts(samples)
    return GroupScores(
        estimate.values,
        estimate.errors,
        pool_samples(samples, run.example_count).values,
        coalitions,
        evaluations=evaluations,
        errors_here=estimate.errors_here,
        samples=tuple(samples),
        layout=str(scheme),
        stopped="" if rule is None else f"{rule}{f' (heuristic: {rule.heuristic})' if rule.heuristic else ''}",
    )
