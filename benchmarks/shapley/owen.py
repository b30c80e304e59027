"""The whole network's game: what independent runs of either estimator differ by, at equal evaluations."""

import time
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from secateur.importance.shapley.aggregates import mean
from secateur.importance.shapley.auto_sampler import control_variate_for
from secateur.importance.shapley.dense_run import DenseRun
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.owen import WHOLE, nested_sampler
from secateur.importance.shapley.sampling_blocks import DesignScheme, SamplingScheme
from shapley.subjects import Subject

SEEDS, PER_UNIT = 4, 100


@dataclass(frozen=True)
class Whole:
    """One estimator: evaluations and seconds of a run, and its error as a part of the values' squares."""

    subject: str
    players: int
    method: str
    evaluations: int
    seconds: float
    error: float


def owen(subject: Subject) -> list[Whole]:
    """Both estimators. Errors are half of the squared difference of independent runs."""
    game = Game(subject.context, subject.context.groups, cursor=DenseRun(subject.context, 1 << 31))
    layouts: dict[str, SamplingScheme] = {
        "antithetic": DesignScheme("owen", nested_sampler(game.sizes), 2),
        "controlled": control_variate_for(game, mean, 0, WHOLE),
    }
    runs = {name: [_run(subject, game, layout, seed) for seed in range(SEEDS)] for name, layout in layouts.items()}
    values = [run[0] for run in runs["controlled"]]
    squares = sum(float((a * b).sum()) for a, b in pairwise(values)) / (SEEDS - 1)  # noise drops out of products
    found = []
    for name, each in runs.items():
        differences = [float((a[0] - b[0]).square().sum()) / 2 for a, b in pairwise(each)]
        error = sum(differences) / len(differences) / squares
        seconds = sum(run[2] for run in each) / SEEDS
        found.append(Whole(subject.name, game.players, name, each[0][1], seconds, error))
    return found


def _run(subject: Subject, game: Game, layout: SamplingScheme, seed: int) -> tuple[Tensor, int, float]:
    start, samples, evaluations = time.perf_counter(), [], 0
    while evaluations < PER_UNIT * game.players:
        samples.append(layout.sample(game, subject.numbers, seed, WHOLE, len(samples)))
        evaluations += samples[-1].evaluations
    total = sum(sample.shares.mean(1) + sample.correction for sample in samples) / len(samples)
    return total, evaluations, time.perf_counter() - start
