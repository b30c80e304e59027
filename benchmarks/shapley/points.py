"""Error and rank correlation of estimates against coalitions, evaluations and seconds."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from secateur.importance.shapley.aggregates import mean
from secateur.importance.shapley.auto_sampler import scheme_for
from secateur.importance.shapley.config import Shapley
from secateur.importance.shapley.game import Game
from shapley.subjects import Subject, relative_error

ESTIMATORS = (
    "controlled", "permutation", "antithetic", "orthogonal", "leverage", "kernelshap", "adjusted", "svarm"
)  # fmt: skip
SEEDS = 3
BUDGETS = (16, 32, 64)  # evaluations per unit


@dataclass(frozen=True)
class Point:
    """One estimate: by whom, of which group, what it took, and how good it is."""

    method: str
    subject: str
    group: str
    budget: int
    coalitions: float
    evaluations: float
    seconds: float
    error: float
    correlation: float


def ours(
    subject: Subject,
    game: Game,
    truth: Tensor,
    budgets: Sequence[int] = BUDGETS,
    methods: Sequence[str] = ESTIMATORS,
) -> list[Point]:
    """Each of our estimators with so many evaluations for each unit, the mean over seeds."""
    name, points = game.groups[0].name, []
    for method in tqdm(methods, desc=name, leave=False):
        runs = [_run(subject, game, name, method, seed, truth, budgets) for seed in range(SEEDS)]
        points += [averaged(each) for each in zip(*runs, strict=True)]
    return points


def _run(
    subject: Subject, game: Game, name: str, method: str, seed: int, truth: Tensor, budgets: Sequence[int]
) -> list[Point]:
    start = time.perf_counter()
    layout = scheme_for(game, Shapley(sampler=method), mean, seed, name)
    samples, points, evaluations = [], [], 0
    for budget in budgets:
        while not samples or evaluations < budget * game.players:
            samples.append(layout.sample(game, subject.numbers, seed, name, len(samples)))
            evaluations += samples[-1].evaluations
        seconds = time.perf_counter() - start
        values = torch.stack([sample.shares.mean(1) + sample.correction for sample in samples]).mean(0)
        coalitions = sum(sample.coalitions for sample in samples)
        points.append(point_of(method, subject.name, name, budget, (coalitions, evaluations, seconds), values, truth))
    return points


def point_of(
    method: str, subject: str, group: str, budget: int, took: tuple[float, float, float], values: Tensor, truth: Tensor
) -> Point:
    correlation = float(spearmanr(values, truth).statistic)
    return Point(method, subject, group, budget, *took, relative_error(values, truth), correlation)


def averaged(points: Sequence[Point]) -> Point:
    first = points[0]
    parts = ("coalitions", "evaluations", "seconds", "error", "correlation")
    means = (sum(getattr(point, part) for point in points) / len(points) for part in parts)
    return Point(first.method, first.subject, first.group, first.budget, *means)
