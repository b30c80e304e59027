"""The whole network's game: the differences of independent runs of two estimators at equal evaluations."""

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
from shapley.subjects import GameSubject

SEEDS, PER_UNIT = 4, 100


@dataclass(frozen=True)
class OwenMeasurement:
    """The evaluations and seconds of a run of one estimator, and its error as a part of the values' squares."""

    subject: str
    players: int
    method: str
    evaluations: int
    seconds: float
    error: float


def measure_owen(subject: GameSubject) -> list[OwenMeasurement]:
    """Measure both estimators; errors are half of the squared difference of independent runs."""
    game = Game(subject.context, subject.context.groups, cursor=DenseRun(subject.context, 1 << 31))
    schemes: dict[str, SamplingScheme] = {
        "antithetic": DesignScheme("owen", nested_sampler(game.sizes), 2),
        "controlled": control_variate_for(game, mean, 0, WHOLE),
    }
    runs = {
        name: [_estimate_run(subject, game, scheme, seed) for seed in range(SEEDS)] for name, scheme in schemes.items()
    }
    values = [run[0] for run in runs["controlled"]]
    squares = sum(float((a * b).sum()) for a, b in pairwise(values)) / (SEEDS - 1)  # noise drops out of products
    measurements = []
    for name, runs_of_scheme in runs.items():
        differences = [float((a[0] - b[0]).square().sum()) / 2 for a, b in pairwise(runs_of_scheme)]
        error = sum(differences) / len(differences) / squares
        seconds = sum(run[2] for run in runs_of_scheme) / SEEDS
        measurements.append(OwenMeasurement(subject.name, game.players, name, runs_of_scheme[0][1], seconds, error))
    return measurements


def _estimate_run(subject: GameSubject, game: Game, scheme: SamplingScheme, seed: int) -> tuple[Tensor, int, float]:
    start, samples, evaluations = time.perf_counter(), [], 0
    while evaluations < PER_UNIT * game.players:
        samples.append(scheme.sample(game, subject.numbers, seed, WHOLE, len(samples)))
        evaluations += samples[-1].evaluations
    total = sum(sample.shares.mean(1) + sample.correction for sample in samples) / len(samples)
    return total, evaluations, time.perf_counter() - start
