"""Gains by bfloat16 and by a compiler: microseconds for a coalition, and the error of the whole estimate."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from secateur.importance.shapley.aggregates import mean
from secateur.importance.shapley.auto_sampler import scheme_for
from secateur.importance.shapley.config import EvaluationConfig, Shapley
from secateur.importance.shapley.dense_run import DenseRun
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.game_sequence import games_in_order
from secateur.importance.shapley.samplers.leverage import leverage
from secateur.utils.rng import generator_for
from shapley.subjects import GameSubject, relative_error

REPEATS, SEEDS, PER_UNIT = 5, 3, 64
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class PrecisionMeasurement:
    """The microseconds for a coalition on one example and the error of an estimate of one group, by precision."""

    group: str
    microseconds: tuple[float, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class CompiledMeasurement:
    """The milliseconds for a batch, eager and compiled, and the seconds that compiling took."""

    precision: str
    eager: float
    compiled: float
    seconds: float


def measure_precisions(subject: GameSubject, truth: dict[str, Tensor]) -> list[PrecisionMeasurement]:
    """Measure each group in both precisions, in turn."""
    games = [_games(subject, precision) for precision in PRECISIONS]
    measurements = []
    for pair in zip(*games, strict=True):
        name = pair[0].groups[0].name
        times = [[_coalition_seconds(game) for game in pair] for _ in range(REPEATS)]
        microseconds = tuple(median(column) * 1e6 for column in zip(*times, strict=True))
        measurements.append(
            PrecisionMeasurement(name, microseconds, tuple(_mean_error(subject, game, truth[name]) for game in pair))
        )
    return measurements


def _games(subject: GameSubject, precision: str) -> list[Game]:
    config = EvaluationConfig(memory=1 << 31, precision=precision)
    return list(games_in_order(subject.context, config, DenseRun(subject.context, 1 << 31)))


def _coalition_seconds(game: Game) -> float:
    """Return the seconds for one coalition on one example."""
    coalitions = leverage(game.players, generator_for(0, "speed")).coalitions
    positions = torch.arange(len(coalitions)) * 20 // len(coalitions)
    game.cursor.live_values(0, game.cut)
    start = time.perf_counter()
    game.paired_values(coalitions, 0, positions)
    return (time.perf_counter() - start) / len(coalitions)


def _mean_error(subject: GameSubject, game: Game, truth: Tensor) -> float:
    """Return the mean error over seeds."""
    name, errors = game.groups[0].name, []
    for seed in range(SEEDS):
        scheme = scheme_for(game, Shapley(sampler="controlled"), mean, seed, name)
        samples, evaluations = [], 0
        while evaluations < PER_UNIT * game.players:
            samples.append(scheme.sample(game, subject.numbers, seed, name, len(samples)))
            evaluations += samples[-1].evaluations
        values = torch.stack([sample.shares.mean(1) + sample.correction for sample in samples]).mean(0)
        errors.append(relative_error(values, truth))
    return sum(errors) / len(errors)


def measure_compiled(subject: GameSubject, size: int = 64) -> list[CompiledMeasurement]:
    """Measure the whole network on a batch, before and after `torch.compile`."""
    images = subject.context.microbatches[0].args[0]
    batch = images.repeat(-(-size // len(images)), 1, 1, 1)[:size].contiguous(memory_format=torch.channels_last)
    compiled_model, measurements = torch.compile(subject.model), []
    for precision in PRECISIONS:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            start = time.perf_counter()
            compiled_model(batch)
            compile_seconds = time.perf_counter() - start
            eager_seconds, compiled_seconds = (_least_seconds(run, batch) for run in (subject.model, compiled_model))
        measurements.append(
            CompiledMeasurement(precision, eager_seconds * 1e3, compiled_seconds * 1e3, compile_seconds)
        )
    return measurements


def _least_seconds(run: Callable[[Tensor], object], batch: Tensor) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(batch)
        times.append(time.perf_counter() - start)
    return min(times)
