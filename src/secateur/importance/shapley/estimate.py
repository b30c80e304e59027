"""Scores by Shapley value, in numbered blocks that are added up in order."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from secateur.errors import DataError
from secateur.importance.context import CriterionContext, shuffled_microbatches
from secateur.importance.estimates import Sample, pool_samples, side_by_side
from secateur.importance.registry import SAMPLED, criterion
from secateur.importance.scores import GroupScores
from secateur.importance.shapley.aggregates import Aggregate, find_aggregate
from secateur.importance.shapley.auto_sampler import asks_for_slopes, fixed_blocks, scheme_for, stopping_rule_for
from secateur.importance.shapley.cursor import ProgramCursor
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.game_sequence import in_order
from secateur.importance.shapley.jackknife import jackknife_estimate
from secateur.importance.shapley.memory import memory_of
from secateur.importance.shapley.samplers.registry import SAMPLERS
from secateur.importance.shapley.sampling_blocks import SamplingScheme
from secateur.importance.shapley.stopping import EstimateState, Rule
from secateur.utils.distributed import broadcast_result, map_sharded, process_count, process_rank
from secateur.utils.rng import generator_for

FIRST_LOOK, GROWTH = 8, 1.5  # blocks before the rule looks for the first time, and from look to look

SampleSink = Callable[[str, Callable[[], dict[str, GroupScores]]], None]


@dataclass(frozen=True)
class EstimationRun:
    """What all groups of one run share.

    Args:
        context: the network and the examples.
        numbers: of each cell the numbers of its examples in the data.
        aggregate: from examples' values to one score.
        started: when, in seconds.
    """

    context: CriterionContext
    numbers: Sequence[Tensor]
    aggregate: Aggregate
    started: float


@criterion("shapley", options=(*SAMPLED, "estimator", "protocol"), estimators=("controlled", *SAMPLERS), uses="loss")
def shapley_values(context: CriterionContext) -> dict[str, GroupScores]:
    """Each unit's fair share in the network's performance (Ancona, Öztireli, Gross 2020)."""
    context.need_examples("shapley")
    return _group_by_group(context, "published" if context.options.get("protocol") == "paper" else "robust")


def _group_by_group(context: CriterionContext, aggregate: str) -> dict[str, GroupScores]:
    course = estimation_run(context, aggregate)
    found: dict[str, GroupScores] = {}
    frontier = ProgramCursor(course.context, memory_of(context.options))
    games = in_order(course.context, frontier, asks_for_slopes(context.options))
    for place, game in enumerate(games, 1):
        name = game.groups[0].name
        layout = scheme_for(game, context.options, course.aggregate, context.seed, name)
        found |= estimated(course, game, name, layout, place / len(context.groups))
    return {group.name: found[group.name] for group in context.groups}


@criterion("banzhaf", options=SAMPLED, uses="loss")
def banzhaf_values(context: CriterionContext) -> dict[str, GroupScores]:
    """What a unit adds where each other one of its group stays with a chance of a half (Banzhaf 1965)."""
    context.need_examples("banzhaf")
    return _group_by_group(replace(context, options={**context.options, "estimator": "banzhaf"}), "mean")


def estimation_run(context: CriterionContext, aggregate: str) -> EstimationRun:
    """The examples in cells that are not of neighbours, but for a network that takes no other batch than its own.

    Args:
        context: the network and the examples.
        aggregate: the default.
    """
    if context.network.program.batched is None:
        starts = torch.tensor([0, *(cell.size or 1 for cell in context.cells)]).cumsum(0).tolist()
        parts = [torch.arange(*span) for span in pairwise(starts)]
        pile = list(zip(context.cells, parts, strict=True))
    else:
        pile = shuffled_microbatches(context.cells, generator_for(context.seed, "cells"))
    wanted = context.options.get("aggregate")
    chosen = find_aggregate(aggregate if wanted is None else wanted)
    cells, numbers = [cell for cell, _ in pile], [index for _, index in pile]
    return EstimationRun(replace(context, cells=cells), numbers, chosen, time.monotonic())


def estimated(
    course: EstimationRun, game: Game, name: str, layout: SamplingScheme, part: float
) -> dict[str, GroupScores]:
    """The scores of one game's groups, from where an earlier run left off.

    Args:
        course: the run.
        game: the game.
        name: what its draws are for.
        layout: what a block is.
        part: what part of the time allowed may be over when it is done.
    """
    context = course.context
    rule = stopping_rule_for(game, context.options, layout)
    samples = _earlier(context.options.get("resume"), game, layout)
    keep: SampleSink = context.options.get("keep") or (lambda name, scores: None)
    shown = context.progress and process_rank() == 0
    with tqdm(total=1.0, desc=name, bar_format=BAR, disable=None if shown else True, leave=False) as bar:
        for upto in _looks(rule, fixed_blocks(context.options, len(context.cells))):
            while len(samples) < upto:
                blocks = range(len(samples), min(len(samples) + process_count(), upto))
                samples += map_sharded(
                    blocks, lambda block: layout.sample(game, course.numbers, context.seed, name, block)
                )
                keep(name, partial(_summaries, course, game, samples, layout, rule))
            if rule is None or len(samples) > upto:
                continue
            reached = broadcast_result(partial(rule.progress, _state(course, samples, part)))
            if math.isnan(reached):  # it would never end
                raise DataError(f"the stopping rule {rule} gave NaN for {name}; take another, or give coalitions=")
            bar.update(max(min(reached, 1.0) - bar.n, 0.0))
            if reached >= 1:
                break
    return _summaries(course, game, samples, layout, rule)


COUNTS = ("coalitions", "evaluations")
BAR = "{l_bar}{bar}| {elapsed}"


def _looks(rule: Rule | None, fixed: int) -> Iterator[int]:
    """After how many blocks the rule looks."""
    upto = FIRST_LOOK if rule is not None else fixed
    yield upto
    while rule is not None:
        upto = math.ceil(upto * GROWTH)
        yield upto


def _earlier(resume: Any, game: Game, layout: SamplingScheme) -> list[Sample]:
    """What an earlier run gave for the groups of a game.

    Raises:
        DataError: it was estimated in another way.
    """
    names = [group.name for group in game.groups]
    if resume is None or any(name not in resume or resume[name].samples is None for name in names):
        return []
    other = next((name for name in names if resume[name].layout != str(layout)), None)
    if other is not None:
        raise DataError(
            f"the scores to resume have {other} by {resume[other].layout}, not by {layout}; ask for the same estimator "
            "and kind of aggregate, or start anew"
        )
    return [side_by_side(parts) for parts in zip(*(resume[name].samples for name in names), strict=True)]


def _state(course: EstimationRun, samples: Sequence[Sample], part: float) -> EstimateState:
    found = jackknife_estimate(samples, sum(len(each) for each in course.numbers), course.aggregate)
    spent = time.monotonic() - course.started
    coalitions, evaluations = (sum(getattr(sample, count) for sample in samples) for count in COUNTS)
    return EstimateState(
        coalitions, evaluations, lambda seconds: spent / (seconds * part), found.replicates, found.errors_here
    )


def _summaries(
    course: EstimationRun, game: Game, samples: Sequence[Sample], layout: SamplingScheme, rule: Rule | None
) -> dict[str, GroupScores]:
    """The scores of each group of a game."""
    starts = torch.tensor([0, *(group.size for group in game.groups)]).cumsum(0).tolist()
    return {
        group.name: _summary(course, [sample.only(slice(*span)) for sample in samples], layout, rule)
        for group, span in zip(game.groups, pairwise(starts), strict=True)
    }


def _summary(
    course: EstimationRun, samples: Sequence[Sample], layout: SamplingScheme, rule: Rule | None
) -> GroupScores:
    examples = sum(len(each) for each in course.numbers)
    found, whole = jackknife_estimate(samples, examples, course.aggregate), pool_samples(samples, examples)
    coalitions, evaluations = (sum(getattr(sample, count) for sample in samples) for count in COUNTS)
    return GroupScores(
        found.values,
        found.errors,
        whole.values,
        coalitions,
        evaluations=evaluations,
        errors_here=found.errors_here,
        samples=tuple(samples),
        layout=str(layout),
        stopped="" if rule is None else f"{rule}{', a heuristic' if rule.heuristic else ''}",
    )
