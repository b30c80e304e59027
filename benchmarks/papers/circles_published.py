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
from matplotlib.figure import Figure
from torch import Tensor, nn

import secateur as sc
from papers.circles import KEPT, PUBLISHED, MixedScaleDense
from papers.msd_training import BufferTrainer, MapBuffer
from papers.published_circles import DEPTH, METHODS, STEPS, TARGET, Circles, kernels_in, load_circles, load_network
from papers.settings import Record, Row, Settings
from secateur.channel_graph.build import graph_of
from secateur.sparsity.dead_kernels import remove_dead_kernels
from secateur.sparsity.lean import lean
from secateur.sparsity.selection import SELECT

FILE = "circles.npz"
BATCH, EPOCHS = 5, 3
VARIANCE = 0.0  # the network has no batch norm
PUBLISHED_LEAN = (
    0.9527, 0.9535, 0.9535, 0.9524, 0.9514, 0.9474, 0.9477, 0.9382, 0.9389, 0.9349, 0.9348, 0.9260, 0.9252, 0.9113,
    0.9030,
)  # fmt: skip
SHOWN = tuple(
    min(range(1, STEPS + 1), key=lambda step, keep=keep: abs(TARGET ** (step / STEPS) - keep)) for keep in KEPT
)


class OutOfTimeError(Exception):
    """The minutes that were given are over."""


def run(settings: Settings, record: Record) -> None:
    """Write a row after every step of every method."""
    started, limit = time.perf_counter(), settings.minutes * 60
    device = torch.device(settings.device)
    file = settings.data / FILE
    count = 2 * BATCH if settings.quick else None
    circles = load_circles(file, count)
    if settings.quick:
        circles = _cropped(circles, 64)
    bench = Bench(file, circles, device, started + limit)
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
class Bench:
    """The data and the trained network on a device, ready to be pruned again and again.

    Args:
        file: of the packed data.
        circles: its images and labels.
        device: where to train and to measure; what is not training runs on the processor.
        deadline: on the clock of `time.perf_counter`.
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
        """The trained network, its optimizer as it was at the end of its training."""
        network = load_network(self.file)
        model = network.model()
        maps = MapBuffer(model, BATCH, self.images["train"].shape[-1], self.device)
        self.trainer = BufferTrainer(maps, self.images["train"], self.labels["train"], network.moments)
        return model

    def accuracies(self, splits: Sequence[str] = ("test", "val")) -> Row:
        """Of the network as it is, on the images of some splits."""
        return {split: self.trainer.accuracy(self.images[split], self.labels[split]) for split in splits}

    def check_time(self) -> None:
        """
        Raises:
            OutOfTimeError: the deadline has passed.
        """
        if time.perf_counter() > self.deadline:
            raise OutOfTimeError


def _prune_in_steps(bench: Bench, by: str, steps: int, record: Record) -> None:
    """All steps of one method, with fine-tuning after each."""
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


def _prune_at_once(bench: Bench, by: str, step: int, record: Record) -> None:
    """As many kernels as a step leaves, chosen from the trained network, without fine-tuning."""
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
    """Which 3 x 3 kernels are not zero, layer by layer. (kernels,)"""
    layers = (
        parameter for name, parameter in model.named_parameters() if name.startswith("layers") and name[-1] == "t"
    )
    return torch.cat([weight.detach()[0].flatten(1).ne(0).any(1).cpu() for weight in layers])


def _agreements(file: Path, example: Tensor, deadline: float, steps: int) -> Iterator[Row]:
    """For each published network: the masks that Secateur chooses from the one before it, and its own."""
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
            apart = int((_kernels(chosen) & ~strongest).sum())
            kept = remove_dead_kernels(network, graph, chosen, VARIANCE)
            ours = _kernels(kept)
            norms = torch.cat([block.values.flatten() for block in graph.layers[:DEPTH]]).exp()
            below = float((norms[norms > 0] < 1).double().mean())
            shared, either = int((ours & theirs).sum()), int((ours | theirs).sum())
            yield {
                "by": by, "step": step, "asked": TARGET ** (step / STEPS), "jaccard": shared / either,
                "ours": int(ours.sum()), "theirs": int(theirs.sum()), "below 1": below, "chains": chains,
                "filled": filled, "other than by norm": apart / quota,
            }  # fmt: skip


def _kernels(kept: Mapping[str, Tensor]) -> Tensor:
    """Which kernels of the layers that can be pruned stay, in one row."""
    return torch.cat([kept[f"layers.{number}.weight"][0] for number in range(DEPTH)])


def _cropped(circles: Circles, side: int) -> Circles:
    images = {split: x[..., :side, :side].contiguous() for split, x in circles.images.items()}
    return Circles(images, {split: y[..., :side, :side].contiguous() for split, y in circles.labels.items()})


def figure(rows: list[Row]) -> Figure:
    """Accuracy against the kernels kept, ours (lines) and published (dashed)."""
    drawn = Figure(figsize=(5, 3.4), layout="constrained")
    axes = drawn.subplots()
    for number, (by, published) in enumerate(PUBLISHED.items()):
        own = [row for row in rows if row["by"] == by and row.get("tuned") is True]
        axes.plot(_column(own, "asked"), _column(own, "test"), color=f"C{number}", marker=".", label=by)
        axes.plot(KEPT, published, color=f"C{number}", linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("kernels kept")
    axes.set_ylabel("pixel accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return drawn


def _column(rows: list[Row], name: str) -> list[float]:
    return [float(row[name]) for row in rows]  # type: ignore[arg-type]


def page(rows: list[Row]) -> list[str]:
    """Accuracies beside the published ones, and how far the masks agree."""
    dense = next((row for row in rows if row["by"] == "dense"), None)
    lines = (
        [] if dense is None else [f"Accuracy of the published dense network, rebuilt: {float(dense['test']):.4f}.", ""]
    )  # type: ignore[arg-type]
    lines += [
        "Pixel accuracy on the 50 test images (published in brackets; without fine-tuning nothing is published):",
        "",
    ]
    lines += ["| kernels kept | " + " | ".join(f"{by} | {by}, no tuning" for by in METHODS) + " |"]
    lines += ["|---" * (1 + 2 * len(METHODS)) + "|"]
    for place, keep in enumerate(KEPT):
        cells = [_cell(rows, by, tuned, place) for by in METHODS for tuned in (True, False)]
        lines.append(f"| {keep:.0%} | {' | '.join(cells)} |")
    return [*lines, "", *_step_table(rows), *_agreement_table(rows)]


def _step_table(rows: list[Row]) -> list[str]:
    """Each step of LEAN: accuracies, and what its chains were made of."""
    lines = [
        "LEAN step by step. The last three columns describe the choice from the authors' network of the step before:",
        "",
    ]
    lines += [
        "| LEAN, kernels asked for | kept | accuracy | published | norms below 1 | chains | kernels by norm alone |"
    ]
    lines += ["|---" * 7 + "|"]
    for step, published in enumerate(PUBLISHED_LEAN, 1):
        here: Row = {"kernels": "", "test": ""}
        for row in rows:
            if row["by"] == "lean" and row.get("step") == step and (row.get("tuned") is True or "jaccard" in row):
                here |= row
        accuracy = f"{here['test']:.4f}" if here["test"] != "" else "-"
        below = f"{here['below 1']:.0%}" if "below 1" in here else "-"
        lines.append(
            f"| {TARGET ** (step / STEPS):.1%} | {here['kernels'] or '-'} | {accuracy} | {published:.4f} | {below} | "
            f"{here.get('chains', '-')} | {here.get('filled', '-')} |"
        )
    return [*lines, ""]


def _cell(rows: list[Row], by: str, tuned: bool, place: int) -> str:
    own = [row for row in rows if row["by"] == by and row.get("step") == SHOWN[place] and row.get("tuned") is tuned]
    value = f"{float(own[0]['test']):.3f}" if own else "-"  # type: ignore[arg-type]
    return f"{value} ({PUBLISHED[by][place]})" if tuned else value


def _agreement_table(rows: list[Row]) -> list[str]:
    compared = [row for row in rows if "jaccard" in row]
    if not compared:
        return []
    lines = ["Masks chosen from each published network for the next step, against the published ones (Jaccard):", ""]
    lines += ["| | identical steps | lowest | mean |", "|---|---|---|---|"]
    for by in METHODS:
        values = [float(row["jaccard"]) for row in compared if row["by"] == by]  # type: ignore[arg-type]
        if values:
            same = sum(value == 1 for value in values)
            lines.append(f"| {by} | {same} of {len(values)} | {min(values):.3f} | {np.mean(values):.4f} |")
    return lines
