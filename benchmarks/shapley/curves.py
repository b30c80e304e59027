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
from shapley.peers import PEERS, Whole, by_orders
from shapley.points import SEEDS, Point, averaged, point_of
from shapley.subjects import Subject, relative_error

ORDERS = 5


def theirs(subject: Subject, game: Game, truth: Tensor) -> list[Point]:
    """Each peer with the coalitions of five orders, the mean over two seeds."""
    points, name = [], game.groups[0].name
    for method, peer in tqdm(PEERS.items(), desc=f"{name}, peers", leave=False):
        runs = []
        for seed in range(2):
            found = peer(Whole(game), game.players, ORDERS, seed)
            took = (found.coalitions, found.coalitions * subject.examples, found.seconds)
            runs.append(point_of(method, subject.name, name, ORDERS, took, found.values, truth))
        points.append(averaged(runs))
    return points


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
