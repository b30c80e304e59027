"""Error and rank correlation against coalitions, evaluations and seconds, for our estimators and for peers."""

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
from shapley.peers import PEERS, Whole, by_orders
from shapley.subjects import Subject, relative_error

ESTIMATORS = (
    "controlled", "permutation", "antithetic", "orthogonal", "leverage", "kernelshap", "adjusted", "svarm"
)  # fmt: skip
ORDERS = 5
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


def ours(subject: Subject, game: Game, truth: Tensor, budgets: Sequence[int] = BUDGETS) -> list[Point]:
    """Each of our estimators with so many evaluations for each unit, the mean over seeds."""
    name, points = game.groups[0].name, []
    for method in tqdm(ESTIMATORS, desc=name, leave=False):
        runs = [_run(subject, game, name, method, seed, truth, budgets) for seed in range(SEEDS)]
        points += [_averaged(each) for each in zip(*runs, strict=True)]
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
        points.append(_point(method, subject.name, name, budget, (coalitions, evaluations, seconds), values, truth))
    return points


def theirs(subject: Subject, game: Game, truth: Tensor) -> list[Point]:
    """Each peer with the coalitions of five orders, the mean over two seeds."""
    points, name = [], game.groups[0].name
    for method, peer in tqdm(PEERS.items(), desc=f"{name}, peers", leave=False):
        runs = []
        for seed in range(2):
            found = peer(Whole(game), game.players, ORDERS, seed)
            took = (found.coalitions, found.coalitions * subject.examples, found.seconds)
            runs.append(_point(method, subject.name, name, ORDERS, took, found.values, truth))
        points.append(_averaged(runs))
    return points


def _point(
    method: str, subject: str, group: str, budget: int, took: tuple[float, float, float], values: Tensor, truth: Tensor
) -> Point:
    correlation = float(spearmanr(values, truth).statistic)
    return Point(method, subject, group, budget, *took, relative_error(values, truth), correlation)


def _averaged(points: Sequence[Point]) -> Point:
    first = points[0]
    parts = ("coalitions", "evaluations", "seconds", "error", "correlation")
    means = (sum(getattr(point, part) for point in points) / len(points) for part in parts)
    return Point(first.method, first.subject, first.group, first.budget, *means)


@dataclass(frozen=True)
class Race:
    """How long the authors' five orders take on one group, and how long we take to come as near."""

    group: str
    units: int
    error: float
    seconds: float
    our_error: float
    our_seconds: float


MOST_BLOCKS = 40


def race(subject: Subject, game: Game, truth: Tensor) -> Race:
    """Blocks are added until their mean error over seeds is that of five orders: a fifth of that of one."""
    name = game.groups[0].name
    orders, took = by_orders(Whole(game), game.players, ORDERS, 0)
    bar = sum(relative_error(order, truth) for order in orders) / ORDERS**2
    seconds, totals = 0.0, [torch.zeros(game.players, dtype=torch.float64) for _ in range(SEEDS)]
    layouts = []
    for seed in range(SEEDS):
        start = time.perf_counter()
        layouts.append(scheme_for(game, Shapley(), mean, seed, name))
        seconds += time.perf_counter() - start
    for block in range(MOST_BLOCKS):
        for seed, layout in enumerate(layouts):
            start = time.perf_counter()
            made = layout.sample(game, subject.numbers, seed, name, block)
            seconds += time.perf_counter() - start
            totals[seed] += made.shares.mean(1) + made.correction
        error = sum(relative_error(total / (block + 1), truth) for total in totals) / SEEDS
        if error <= bar:
            break
    return Race(name, game.players, bar, took, error, seconds / SEEDS)
