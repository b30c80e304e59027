"""The time of coalitions beside that of the bare suffix of the network, and the time of one-pass criteria."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from processor_time import processor_seconds
from torch import Tensor
from torch.nn import functional as F

import secateur as sc
from secateur.importance.shapley.batching import select_reference, select_rows
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.samplers.leverage import leverage
from secateur.utils.rng import generator_for
from shapley.subjects import GameSubject

REPEATS = 5


@dataclass(frozen=True)
class Throughput:
    """Microseconds for one coalition on one example, and for the bare suffix of the network on one image."""

    group: str
    coalition: float
    bare: float


def measure_throughput(game: Game) -> Throughput:
    """Time coalitions in turn with the bare suffix, which gets batches of the size that is faster for it."""
    coalitions = leverage(game.players, generator_for(0, "speed")).coalitions
    positions = torch.arange(len(coalitions)) * 20 // len(coalitions)
    baseline, live = game.cursor.dense_baseline(0), game.cursor.live_values(0, game.cut)

    def bare(size: int) -> Callable[[], object]:
        examples = torch.arange(size) % baseline.examples
        values = {
            node: select_rows(game.program, node.meta["val"], value, examples, baseline.examples)
            for node, value in live.items()
        }
        reference = select_reference(baseline.reference, examples)
        with torch.no_grad():
            return lambda: game.runner.run(dict(values), {}, reference, size)

    batches = {size: bare(size) for size in {32, game.tile}}
    times: dict[int, list[float]] = {0: [], **{size: [] for size in batches}}
    for _ in range(REPEATS):
        times[0].append(processor_seconds(lambda: game.paired_values(coalitions, 0, positions)) / len(coalitions))
        for size, run in batches.items():
            with torch.no_grad():
                times[size].append(processor_seconds(run) / size)
    coalition, *others = (median(seconds) * 1e6 for seconds in times.values())
    return Throughput(game.groups[0].name, coalition, min(others))


def one_pass(subject: GameSubject) -> dict[str, float]:
    """Return the time of each one-pass criterion for all groups, as a multiple of one forward and backward pass."""
    network = subject.context.network
    data = [(microbatch.args[0], microbatch.target) for microbatch in subject.context.microbatches]
    names = ("taylor", "sensitivity", "apoz")

    def plain() -> None:
        for images, labels in data:
            x: Tensor = images.clone().requires_grad_()
            F.cross_entropy(subject.model(x), labels).backward()
        subject.model.zero_grad(set_to_none=True)

    runs: dict[str, Callable[[], object]] = {
        name: (lambda name=name: sc.score(network, data, by=name, ablation="zero", progress=False)) for name in names
    }
    times: dict[str, list[float]] = {"plain": [], **{name: [] for name in names}}
    for _ in range(REPEATS):
        times["plain"].append(processor_seconds(plain))
        for name, run in runs.items():
            times[name].append(processor_seconds(run))
    return {name: median(times[name]) / median(times["plain"]) for name in names}
