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
from shapley.subjects import GameSubject, relative_error

ESTIMATORS = (
    "controlled", "permutation", "antithetic", "orthogonal", "leverage", "kernelshap", "adjusted", "svarm"
)  # fmt: skip
SEEDS = 3
BUDGETS = (16, 32, 64)  # evaluations per unit


@dataclass(frozen=True)
class Point:
    """One estimate of the values of a group, with its cost and its error."""

    method: str
    subject: str
    group: str
    budget: int
    coalitions: float
    evaluations: float
    seconds: float
    error: float
    correlation: float


def our_points(
    subject: GameSubject,
    game: Game,
    truth: Tensor,
    budgets: Sequence[int] = BUDGETS,
    methods: Sequence[str] = ESTIMATORS,
) -> list[Point]:
    """Return a point for each of our estimators and budgets of evaluations for each unit, the mean over seeds."""
    name, points = game.groups[0].name, []
    for method in tqdm(methods, desc=name, leave=False):
        runs = [_points_of_seed(subject, game, name, method, seed, truth, budgets) for seed in range(SEEDS)]
        points += [mean_point(points_of_seeds) for points_of_seeds in zip(*runs, strict=True)]
    return points


def _points_of_seed(
    subject: GameSubject, game: Game, name: str, method: str, seed: int, truth: Tensor, budgets: Sequence[int]
) -> list[Point]:
    start = time.perf_counter()
    scheme = scheme_for(game, Shapley(sampler=method), mean, seed, name)
    samples, points, evaluations = [], [], 0
    for budget in budgets:
        while not samples or evaluations < budget * game.players:
            samples.append(scheme.sample(game, subject.numbers, seed, name, len(samples)))
            evaluations += samples[-1].evaluations
        seconds = time.perf_counter() - start
        values = torch.stack([sample.shares.mean(1) + sample.correction for sample in samples]).mean(0)
        coalitions = sum(sample.coalitions for sample in samples)
        points.append(make_point(method, subject.name, name, budget, (coalitions, evaluations, seconds), values, truth))
    return points


def make_point(
    method: str, subject: str, group: str, budget: int, cost: tuple[float, float, float], values: Tensor, truth: Tensor
) -> Point:
    """Return the point of an estimate, with its error and its rank correlation.

    Args:
        method: the estimator.
        subject: the network.
        group: the group.
        budget: evaluations for each unit.
        cost: coalitions, evaluations and seconds.
        values: the estimate, (units,).
        truth: the true values, (units,).
    """
    correlation = float(spearmanr(values, truth).statistic)
    return Point(method, subject, group, budget, *cost, relative_error(values, truth), correlation)


def mean_point(points: Sequence[Point]) -> Point:
    """Return the mean of the points of several seeds."""
    first = points[0]
    measures = ("coalitions", "evaluations", "seconds", "error", "correlation")
    means = (sum(getattr(point, measure) for point in points) / len(points) for measure in measures)
    return Point(first.method, first.subject, first.group, first.budget, *means)
