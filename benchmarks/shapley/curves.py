"""Error and rank correlation against coalitions, evaluations and seconds, for our estimators and for peers."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from secateur.importance.shapley.aggregates import mean
from secateur.importance.shapley.auto_sampler import scheme_for
from secateur.importance.shapley.config import Shapley
from secateur.importance.shapley.game import Game
from shapley.peers import PEERS, CoalitionValue, marginals_of_orders
from shapley.points import SEEDS, Point, make_point, mean_point
from shapley.subjects import GameSubject, relative_error

ORDERS = 5


def peer_points(subject: GameSubject, game: Game, truth: Tensor) -> list[Point]:
    """Return a point for each peer with the coalitions of five orders, the mean over two seeds."""
    points, name = [], game.groups[0].name
    for method, peer in tqdm(PEERS.items(), desc=f"{name}, peers", leave=False):
        runs = []
        for seed in range(2):
            estimate = peer(CoalitionValue(game), game.players, ORDERS, seed)
            cost = (estimate.coalitions, estimate.coalitions * subject.examples, estimate.seconds)
            runs.append(make_point(method, subject.name, name, ORDERS, cost, estimate.values, truth))
        points.append(mean_point(runs))
    return points


@dataclass(frozen=True)
class Race:
    """The times of the authors' five orders and of our estimator, which runs until its error is as small.

    Args:
        group: the name of the group.
        units: the number of its units.
        error: the error of the mean of five orders.
        seconds: the time of five orders.
        our_error: the error of our estimator.
        our_seconds: its time.
    """

    group: str
    units: int
    error: float
    seconds: float
    our_error: float
    our_seconds: float


MOST_BLOCKS = 40


def race(subject: GameSubject, game: Game, truth: Tensor) -> Race:
    """Add blocks of samples until their mean error over seeds is that of five orders, a fifth of the error of one."""
    name = game.groups[0].name
    orders, authors_seconds = marginals_of_orders(CoalitionValue(game), game.players, ORDERS, 0)
    goal = sum(relative_error(order, truth) for order in orders) / ORDERS**2
    seconds, totals = 0.0, [torch.zeros(game.players, dtype=torch.float64) for _ in range(SEEDS)]
    schemes = []
    for seed in range(SEEDS):
        start = time.perf_counter()
        schemes.append(scheme_for(game, Shapley(), mean, seed, name))
        seconds += time.perf_counter() - start
    for block in range(MOST_BLOCKS):
        for seed, scheme in enumerate(schemes):
            start = time.perf_counter()
            sample = scheme.sample(game, subject.numbers, seed, name, block)
            seconds += time.perf_counter() - start
            totals[seed] += sample.shares.mean(1) + sample.correction
        error = sum(relative_error(total / (block + 1), truth) for total in totals) / SEEDS
        if error <= goal:
            break
    return Race(name, game.players, goal, authors_seconds, error, seconds / SEEDS)
