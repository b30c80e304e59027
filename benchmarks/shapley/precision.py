"""What bfloat16 and a compiler give: microseconds for a coalition, and the error of the whole estimate."""

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
from shapley.subjects import Subject, relative_error

REPEATS, SEEDS, PER_UNIT = 5, 3, 64
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Precise:
    """One group: microseconds for a coalition on one example and the error after so many evaluations, by precision."""

    group: str
    microseconds: tuple[float, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class Compiled:
    """Milliseconds for a batch, as it is and compiled, and the seconds that compiling took."""

    precision: str
    eager: float
    compiled: float
    seconds: float


def precise(subject: Subject, truth: dict[str, Tensor]) -> list[Precise]:
    """Each group in either precision, in turn."""
    games = [_games(subject, precision) for precision in PRECISIONS]
    found = []
    for pair in zip(*games, strict=True):
        name = pair[0].groups[0].name
        times = [[_seconds(game) for game in pair] for _ in range(REPEATS)]
        spent = tuple(median(column) * 1e6 for column in zip(*times, strict=True))
        found.append(Precise(name, spent, tuple(_error(subject, game, truth[name]) for game in pair)))
    return found


def _games(subject: Subject, precision: str) -> list[Game]:
    config = EvaluationConfig(memory=1 << 31, precision=precision)
    return list(games_in_order(subject.context, config, DenseRun(subject.context, 1 << 31)))


def _seconds(game: Game) -> float:
    """For one coalition on one example."""
    coalitions = leverage(game.players, generator_for(0, "speed")).coalitions
    positions = torch.arange(len(coalitions)) * 20 // len(coalitions)
    game.cursor.live_values(0, game.cut)
    start = time.perf_counter()
    game.paired_values(coalitions, 0, positions)
    return (time.perf_counter() - start) / len(coalitions)


def _error(subject: Subject, game: Game, truth: Tensor) -> float:
    """The mean over seeds."""
    name, errors = game.groups[0].name, []
    for seed in range(SEEDS):
        layout = scheme_for(game, Shapley(sampler="controlled"), mean, seed, name)
        samples, evaluations = [], 0
        while evaluations < PER_UNIT * game.players:
            samples.append(layout.sample(game, subject.numbers, seed, name, len(samples)))
            evaluations += samples[-1].evaluations
        values = torch.stack([sample.shares.mean(1) + sample.correction for sample in samples]).mean(0)
        errors.append(relative_error(values, truth))
    return sum(errors) / len(errors)


def compiled(subject: Subject, size: int = 64) -> list[Compiled]:
    """The whole network on a batch, before and after `torch.compile`."""
    images = subject.context.microbatches[0].args[0]
    batch = images.repeat(-(-size // len(images)), 1, 1, 1)[:size].contiguous(memory_format=torch.channels_last)
    fast, found = torch.compile(subject.model), []
    for precision in PRECISIONS:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            start = time.perf_counter()
            fast(batch)
            took = time.perf_counter() - start
            eager, later = (_least(run, batch) for run in (subject.model, fast))
        found.append(Compiled(precision, eager * 1e3, later * 1e3, took))
    return found


def _least(run: Callable[[Tensor], object], batch: Tensor) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(batch)
        times.append(time.perf_counter() - start)
    return min(times)
