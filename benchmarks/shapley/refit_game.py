"""Rankings by Shapley values of the game after a refit, beside `obs`, `l2` and `random`, after the same repair.

    python -m benchmarks shapley.refit_game --networks vgg-0 residual-1 [--draws 0 1 2]
    python -m benchmarks shapley.refit_game --networks ResNet-20 ResNet-56 --data DIR
    python -m benchmarks shapley.refit_game --table

In the game, an absent unit is predicted from the present ones (`ablation="impute"`), as its consumers have it after a
refit by least squares. Each example has its own game; "mean" and "robust" are the two aggregates of their values, from
the same orders with their reverses, two images for each order. Every ranking removes the same fraction of each group;
the cut network is repaired with the images of the draw, without labels, and compared with the dense network on other
images.

The networks are the nine of `benchmarks/networks` (kind and seed) with 256 of the demo's test images for each draw, and
those after the first 768 to test on; and the CIFAR ResNets with 256 training images for each draw and every fifth test
image. DIR is that of `python -m benchmarks published`. One thread. Rows are appended to
`benchmarks/results/shapley/refit_game.jsonl`, or to the file of `--out`, as soon as they are measured.
"""

import argparse
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from networks.trained import NETWORKS, SEEDS, trained
from provenance import results_folder
from published.cifar import cifar_subject
from published.subject import PublishedSubject, outputs_in_batches
from rows import append_row, read_rows
from torch import Tensor, nn

import secateur as sc
from secateur import demo
from secateur.evaluation.divergence import divergence
from secateur.importance.shapley.aggregates import robust
from secateur.importance.shapley.jackknife import jackknife_estimate
from secateur.stopping import Evaluations
from shapley.refit_table import refit_tables

ROWS = results_folder("shapley") / "refit_game.jsonl"
IMAGES = 256  # of a draw
DRAWS = (0, 1, 2)
BUDGETS = (0.5, 0.25)
REPAIRS = ("refit", "refit, adapt")
LOWDATA = tuple(f"{kind}-{seed}" for kind in NETWORKS for seed in SEEDS)
CIFAR = ("ResNet-20", "ResNet-56")


def refit_subject(name: str, folder: Path | None) -> PublishedSubject:
    """Return a network with images to draw from and images to test on."""
    if name in CIFAR:
        assert folder is not None, f"{name} needs --data"
        return cifar_subject(folder, int(name[-2:]))
    kind, _, seed = name.rpartition("-")
    images, labels = (torch.cat(batches) for batches in zip(*demo.test(), strict=True))
    count = IMAGES * len(DRAWS)
    return PublishedSubject(name, images[:count], images[count:], labels[count:], trained(kind, int(seed)))


def draw_of(subject: PublishedSubject, draw: int) -> list[Tensor]:
    """Return the images of one draw in batches of 32; draws share none where they are taken from 768."""
    if len(subject.images) == IMAGES * len(DRAWS):
        return list(subject.images[IMAGES * draw : IMAGES * (draw + 1)].split(32))
    return subject.draw(IMAGES, draw)


def game_rankings(
    network: sc.Network, data: list[Tensor], draw: int, evaluations: int
) -> Iterator[tuple[str, sc.Scores, Mapping[str, float]]]:
    """Yield each ranking with its name and its cost: seconds of the processor and evaluations."""
    start = time.process_time()
    for by in ("obs", "l2", "random"):
        scores = sc.score(network, data, by=by, seed=draw, progress=False)
        yield by, scores, {"seconds": time.process_time() - start}
        start = time.process_time()
    by = sc.Shapley(sampler="antithetic", aggregate="mean", stop=Evaluations(evaluations, per_unit=True))
    start = time.process_time()
    scores = sc.score(network, data, by=by, ablation="impute", seed=draw, progress=False)
    cost = {
        "seconds": time.process_time() - start,
        "evaluations": sum(group.evaluations for group in scores.groups.values()),
        "noise": _noise_share(scores),
    }
    yield "shapley, mean", scores, cost
    yield "shapley, robust", _robust(scores), cost


def _robust(scores: sc.Scores) -> sc.Scores:
    """Return the robust aggregate of the same samples."""
    groups = {}
    for name, group in scores.groups.items():
        assert group.samples is not None
        values = jackknife_estimate(group.samples, IMAGES, robust).values
        groups[name] = replace(group, values=values, errors=None, per_example=None, samples=None)
    return replace(scores, groups=groups, of="")


def _noise_share(scores: sc.Scores) -> float:
    """Return the part of the variance of scores within a group that is the estimate's error, the mean over groups."""
    shares = [
        float(group.errors_here.square().mean() / group.values.var().clamp_min(1e-300))
        for group in scores.groups.values()
        if group.errors_here is not None and len(group.values) > 1
    ]
    return sum(shares) / len(shares)


def refit_game_rows(
    subject: PublishedSubject, draw: int, evaluations: int, repairs: list[str], budgets: list[float]
) -> Iterator[dict[str, object]]:
    """Yield a row for each ranking, budget and repair."""
    model, data = subject.dense, draw_of(subject, draw)
    network = sc.trace(model, data[0][:2])
    pass_seconds = _pass_seconds(model, data)
    key = {"network": subject.network, "draw": draw, "images": IMAGES}
    for by, scores, cost in game_rankings(network, data, draw, evaluations):
        for keep in budgets:
            plan = sc.plan(network, scores, {"macs": keep}, progress=False)
            for repair in repairs:
                small = sc.repair(sc.cut(model, plan), model, plan, data, repair.split(", "), progress=False)
                setting = {"by": by, "keep": keep, "repair": repair, "macs": plan.cost.macs / plan.dense.macs}
                quality = _test_quality(subject, small)
                yield {**key, **setting, **quality, "passes": cost["seconds"] / pass_seconds, **cost}


def _pass_seconds(model: nn.Module, data: list[Tensor]) -> float:
    """Return the processor seconds of a forward pass of the images."""
    start = time.process_time()
    for batch in data:
        outputs_in_batches(model, batch)
    return time.process_time() - start


def _test_quality(subject: PublishedSubject, small: nn.Module) -> dict[str, float]:
    """Return the accuracies of both networks, and the divergence of the small one's outputs, on the test images."""
    dense, output = (outputs_in_batches(model, subject.test_images) for model in (subject.dense, small))
    return {
        "accuracy": _share_correct(output, subject.test_labels),
        "dense accuracy": _share_correct(dense, subject.test_labels),
        "divergence": float(divergence(output, dense).mean()),
    }


def _share_correct(output: Tensor, labels: Tensor) -> float:
    return float((output.argmax(1) == labels).double().mean())


def main() -> None:
    """Measure, or print the tables of the rows of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[*LOWDATA, *CIFAR], choices=(*LOWDATA, *CIFAR))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--draws", nargs="+", type=int, default=list(DRAWS))
    parser.add_argument("--keep", nargs="+", type=float, default=list(BUDGETS))
    parser.add_argument("--repairs", nargs="+", default=list(REPAIRS), choices=REPAIRS)
    parser.add_argument("--evaluations", type=int, default=64, help="evaluations for each unit")
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(refit_tables(read_rows(args.out)))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for draw in args.draws:
        for name in args.networks:
            for row in refit_game_rows(refit_subject(name, args.data), draw, args.evaluations, args.repairs, args.keep):
                print(row, flush=True)
                append_row(args.out, row)


if __name__ == "__main__":
    main()
