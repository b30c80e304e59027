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
from secateur.importance.evidence import Evidence, shuffled
from secateur.importance.registry import SAMPLED, criterion
from secateur.importance.samples import Sample, pooled, side_by_side
from secateur.importance.scores import GroupScores
from secateur.importance.seeds import generator_for
from secateur.importance.shapley.aggregates import Aggregate, find_aggregate
from secateur.importance.shapley.blocks import Layout
from secateur.importance.shapley.choice import asks_for_slopes, fixed_blocks, layout_for, rule_for
from secateur.importance.shapley.estimators.table import ESTIMATORS
from secateur.importance.shapley.frontier import Frontier
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.judged import judged
from secateur.importance.shapley.memory import memory_of
from secateur.importance.shapley.ordered import in_order
from secateur.importance.shapley.ranks import agreed, processes, rank, shared
from secateur.importance.shapley.stopping import Rule, State

FIRST_LOOK, GROWTH = 8, 1.5  # blocks before the rule looks for the first time, and from look to look

Keep = Callable[[str, Callable[[], dict[str, GroupScores]]], None]


@dataclass(frozen=True)
class Course:
    """What all groups of one run share.

    Args:
        evidence: the network and the examples.
        numbers: of each cell the numbers of its examples in the data.
        aggregate: from examples' values to one score.
        started: when, in seconds.
    """

    evidence: Evidence
    numbers: Sequence[Tensor]
    aggregate: Aggregate
    started: float


@criterion("shapley", options=(*SAMPLED, "estimator", "protocol"), estimators=("controlled", *ESTIMATORS), uses="loss")
def shapley(evidence: Evidence) -> dict[str, GroupScores]:
    """Each unit's fair share in the network's performance (Ancona, Öztireli, Gross 2020)."""
    evidence.need_examples("shapley")
    return _group_by_group(evidence, "published" if evidence.options.get("protocol") == "paper" else "robust")


def _group_by_group(evidence: Evidence, aggregate: str) -> dict[str, GroupScores]:
    course = course_of(evidence, aggregate)
    found: dict[str, GroupScores] = {}
    frontier = Frontier(course.evidence, memory_of(evidence.options))
    games = in_order(course.evidence, frontier, asks_for_slopes(evidence.options))
    for place, game in enumerate(games, 1):
        name = game.groups[0].name
        layout = layout_for(game, evidence.options, course.aggregate, evidence.seed, name)
        found |= estimated(course, game, name, layout, place / len(evidence.groups))
    return {group.name: found[group.name] for group in evidence.groups}


@criterion("banzhaf", options=SAMPLED, uses="loss")
def banzhaf(evidence: Evidence) -> dict[str, GroupScores]:
    """What a unit adds where each other one of its group stays with a chance of a half (Banzhaf 1965)."""
    evidence.need_examples("banzhaf")
    return _group_by_group(replace(evidence, options={**evidence.options, "estimator": "banzhaf"}), "mean")


def course_of(evidence: Evidence, aggregate: str) -> Course:
    """The examples in cells that are not of neighbours, but for a network that takes no other batch than its own.

    Args:
        evidence: the network and the examples.
        aggregate: the default.
    """
    if evidence.network.program.batched is None:
        starts = torch.tensor([0, *(cell.size or 1 for cell in evidence.cells)]).cumsum(0).tolist()
        parts = [torch.arange(*span) for span in pairwise(starts)]
        pile = list(zip(evidence.cells, parts, strict=True))
    else:
        pile = shuffled(evidence.cells, generator_for(evidence.seed, "cells"))
    wanted = evidence.options.get("aggregate")
    chosen = find_aggregate(aggregate if wanted is None else wanted)
    cells, numbers = [cell for cell, _ in pile], [index for _, index in pile]
    return Course(replace(evidence, cells=cells), numbers, chosen, time.monotonic())


def estimated(course: Course, game: Game, name: str, layout: Layout, part: float) -> dict[str, GroupScores]:
    """The scores of one game's groups, from where an earlier run left off.

    Args:
        course: the run.
        game: the game.
        name: what its draws are for.
        layout: what a block is.
        part: what part of the time allowed may be over when it is done.
    """
    evidence = course.evidence
    rule = rule_for(game, evidence.options, layout)
    samples = _earlier(evidence.options.get("resume"), game, layout)
    keep: Keep = evidence.options.get("keep") or (lambda name, scores: None)
    shown = evidence.progress and rank() == 0
    with tqdm(total=1.0, desc=name, bar_format=BAR, disable=None if shown else True, leave=False) as bar:
        for upto in _looks(rule, fixed_blocks(evidence.options, len(evidence.cells))):
            while len(samples) < upto:
                blocks = range(len(samples), min(len(samples) + processes(), upto))
                samples += shared(blocks, lambda block: layout.sample(game, course.numbers, evidence.seed, name, block))
                keep(name, partial(_summaries, course, game, samples, layout, rule))
            if rule is None or len(samples) > upto:
                continue
            reached = agreed(partial(rule.progress, _state(course, samples, part)))
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


def _earlier(resume: Any, game: Game, layout: Layout) -> list[Sample]:
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


def _state(course: Course, samples: Sequence[Sample], part: float) -> State:
    found = judged(samples, sum(len(each) for each in course.numbers), course.aggregate)
    spent = time.monotonic() - course.started
    coalitions, evaluations = (sum(getattr(sample, count) for sample in samples) for count in COUNTS)
    return State(coalitions, evaluations, lambda seconds: spent / (seconds * part), found.replicates, found.errors_here)


def _summaries(
    course: Course, game: Game, samples: Sequence[Sample], layout: Layout, rule: Rule | None
) -> dict[str, GroupScores]:
    """The scores of each group of a game."""
    starts = torch.tensor([0, *(group.size for group in game.groups)]).cumsum(0).tolist()
    return {
        group.name: _summary(course, [sample.only(slice(*span)) for sample in samples], layout, rule)
        for group, span in zip(game.groups, pairwise(starts), strict=True)
    }


def _summary(course: Course, samples: Sequence[Sample], layout: Layout, rule: Rule | None) -> GroupScores:
    examples = sum(len(each) for each in course.numbers)
    found, whole = judged(samples, examples, course.aggregate), pooled(samples, examples)
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
