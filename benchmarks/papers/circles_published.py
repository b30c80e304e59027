"""LEAN's experiment on the published images and network (Schoonhoven et al. 2020).

The authors' repository holds 500 + 100 + 50 images, the trained mixed-scale dense network of depth 50, and the 45
networks that they pruned from it: three methods, 15 steps to 5 %, three epochs of Adam after each step. Here Secateur
prunes the same network in the same steps. `python -m benchmarks reproductions.published_circles REPOSITORY FILE`
packs the authors' files into one, and `--data` names the folder that holds it. `--device cuda --minutes 4` runs
everything on one GPU, and leaves out what does not fit into the time.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import secateur as sc
from papers.circle_files import DEPTH, METHODS, STEPS, TARGET, Circles, kernels_in, load_circles, load_network
from papers.circles_tables import SHOWN
from papers.msd_network import MixedScaleDense
from papers.msd_trainer import BufferTrainer
from papers.msd_training import MapBuffer
from papers.settings import Record, Row, Settings
from secateur.channel_graph.build import graph_of
from secateur.sparsity.dead_kernels import remove_dead_kernels
from secateur.sparsity.lean import lean
from secateur.sparsity.selection import SELECT

FILE = "circles.npz"
BATCH, EPOCHS = 5, 3
VARIANCE = 0.0  # the network has no batch norm


class OutOfTimeError(Exception):
    """The time limit has passed."""


def record_published_circles(settings: Settings, record: Record) -> None:
    """Write a row after every step of every method."""
    started, limit = time.perf_counter(), settings.minutes * 60
    device = torch.device(settings.device)
    file = settings.data / FILE
    count = 2 * BATCH if settings.quick else None
    circles = load_circles(file, count)
    if settings.quick:
        circles = _cropped(circles, 64)
    bench = PruningBench(file, circles, device, started + limit)
    record.add({"by": "dense", "step": 0, "asked": 1.0, "kernels": kernels_in(DEPTH)} | bench.accuracies())
    steps = 1 if settings.quick else STEPS
    try:
        for by in METHODS:
            _prune_in_steps(bench, by, steps, record)
        for by in METHODS:
            for step in SHOWN[:steps]:
                _prune_at_once(bench, by, step, record)
    except OutOfTimeError:
        record.add({"by": "", "stopped": "out of time"})
        return
    for row in _agreements(file, circles.images["test"][:1], bench.deadline, steps):
        record.add(row)


@dataclass
class PruningBench:
    """The data and the trained network on a device, which can be pruned repeatedly.

    Args:
        file: the file of the packed data.
        circles: its images and labels.
        device: the device of training and measurements; the pruning itself runs on the CPU.
        deadline: the time limit, on the clock of `time.perf_counter`.
    """

    file: Path
    circles: Circles
    device: torch.device
    deadline: float
    images: dict[str, Tensor] = field(init=False)
    labels: dict[str, Tensor] = field(init=False)
    trainer: BufferTrainer = field(init=False)

    def __post_init__(self) -> None:
        self.images = {split: x.to(self.device) for split, x in self.circles.images.items()}
        self.labels = {split: y.to(self.device) for split, y in self.circles.labels.items()}
        self.restart()

    def restart(self) -> MixedScaleDense:
        """Return the trained network, and reset the trainer to the state at the end of its training."""
        network = load_network(self.file)
        model = network.model()
        maps = MapBuffer(model, BATCH, self.images["train"].shape[-1], self.device)
        self.trainer = BufferTrainer(maps, self.images["train"], self.labels["train"], network.moments)
        return model

    def accuracies(self, splits: Sequence[str] = ("test", "val")) -> Row:
        """Return the accuracies of the current network on the images of some splits."""
        return {split: self.trainer.accuracy(self.images[split], self.labels[split]) for split in splits}

    def check_time(self) -> None:
        """Check the deadline.

        Raises:
            OutOfTimeError: the deadline has passed.
        """
        if time.perf_counter() > self.deadline:
            raise OutOfTimeError


def _prune_in_steps(bench: PruningBench, by: str, steps: int, record: Record) -> None:
    """Run all steps of one method, with fine-tuning after each."""
    model = bench.restart()
    trainer, start = bench.trainer, time.perf_counter()
    done: list[int] = []

    def fit(work: nn.Module) -> None:
        bench.check_time()
        trainer.maps.take(work)
        done.append(len(done) + 1)
        row = _step_row(work, by, done[-1], tuned=True) | {"before": bench.accuracies(("test",))["test"]}
        for epoch in range(EPOCHS):
            trainer.epoch(seed=EPOCHS * done[-1] + epoch)
            bench.check_time()
        trainer.maps.give(work)
        record.add(row | bench.accuracies() | {"seconds": time.perf_counter() - start})

    keep = TARGET ** (steps / STEPS)
    lean(model, bench.circles.images["train"][:1], keep, by=by, rounds=steps, fit=fit, variance=VARIANCE)


def _prune_at_once(bench: PruningBench, by: str, step: int, record: Record) -> None:
    """Prune the trained network to the kernels of a step at once, without fine-tuning."""
    model = bench.restart()

    def measure(work: nn.Module) -> None:
        bench.check_time()
        bench.trainer.maps.take(work)
        record.add(_step_row(work, by, step, tuned=False) | bench.accuracies(("test",)))

    lean(model, bench.circles.images["train"][:1], TARGET ** (step / STEPS), by=by, fit=measure, variance=VARIANCE)


def _step_row(model: nn.Module, by: str, step: int, tuned: bool) -> Row:
    masks = _masks_of(model)
    row: Row = {"by": by, "step": step, "asked": TARGET ** (step / STEPS), "tuned": tuned}
    return row | {"kernels": int(masks.sum()), "masks": np.packbits(masks.numpy()).tobytes().hex()}


def _masks_of(model: nn.Module) -> Tensor:
    """Return True for the 3 x 3 kernels that are not zero, layer by layer. (kernels,)"""
    layers = (
        parameter for name, parameter in model.named_parameters() if name.startswith("layers") and name[-1] == "t"
    )
    return torch.cat([weight.detach()[0].flatten(1).ne(0).any(1).cpu() for weight in layers])


def _agreements(file: Path, example: Tensor, deadline: float, steps: int) -> Iterator[Row]:
    """Yield the agreement of each published network's mask with the one that Secateur chooses from the step before."""
    model = load_network(file).model()
    network = sc.trace(model, example)
    names = frozenset(f"layers.{number}.weight" for number in range(DEPTH))
    for by in METHODS:
        for step in range(1, steps + 1):
            if time.perf_counter() > deadline:
                return
            before = load_network(file, by if step > 1 else None, step - 1)
            model.load_state_dict(before.parameters)
            theirs = load_network(file, by, step).masks
            graph = graph_of(network)
            quota = int(TARGET ** (step / STEPS) * kernels_in(DEPTH))
            chosen, (chains, filled) = SELECT[by](graph, names, quota)
            strongest = _kernels(SELECT["norm"](graph, names, quota)[0])
            difference = int((_kernels(chosen) & ~strongest).sum())
            kept = remove_dead_kernels(network, graph, chosen, VARIANCE)
            ours = _kernels(kept)
            norms = torch.cat([block.values.flatten() for block in graph.layers[:DEPTH]]).exp()
            below = float((norms[norms > 0] < 1).double().mean())
            shared, either = int((ours & theirs).sum()), int((ours | theirs).sum())
            yield {
                "by": by, "step": step, "asked": TARGET ** (step / STEPS), "jaccard": shared / either,
                "ours": int(ours.sum()), "theirs": int(theirs.sum()), "below 1": below, "chains": chains,
                "filled": filled, "other than by norm": difference / quota,
            }  # fmt: skip


def _kernels(kept: Mapping[str, Tensor]) -> Tensor:
    """Return the kept kernels of the layers that can be pruned, in one row. (kernels,)"""
    return torch.cat([kept[f"layers.{number}.weight"][0] for number in range(DEPTH)])


def _cropped(circles: Circles, side: int) -> Circles:
    images = {split: x[..., :side, :side].contiguous() for split, x in circles.images.items()}
    return Circles(images, {split: y[..., :side, :side].contiguous() for split, y in circles.labels.items()})
