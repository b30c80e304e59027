"""Measure how well simulations of plans agree with other images after the refit that they approximate.

    OMP_NUM_THREADS=1 python -m benchmarks cost.simulations resnet20 demo-25 --data DIR

For each way to allocate the budget, a row gives the divergence from the dense network by three simulations, each with
its cost in forward passes of the dense network over the same examples, and on the test images after a refit; with
`--adapt` also after the default repair. "held out": two thirds of 192 examples serve for the refit with a ridge of .01,
the others judge it. "crossed": the simulation of `prune`, in which each half of the examples judges a refit on the
other half, with a ridge of .1. "in-sample": the same examples serve for both. Networks and DIR are those of
`python -m benchmarks cost`. A network takes about a minute.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from scipy.stats import spearmanr

import secateur as sc
from cost.subjects import SUBJECTS, Subject
from secateur.allocation.candidates import candidate_allocations
from secateur.allocation.config import PruneConfig
from secateur.allocation.plan_sizes import Allocation
from secateur.allocation.search import SIMULATED, PlanSearch
from secateur.allocation.simulate import PlanSimulator
from secateur.allocation.simulation_fold import Fold, quick_execution
from secateur.data.conversion import as_batches
from secateur.evaluation.calibration import Calibration
from secateur.importance.context import split_microbatches

HELD_OUT = 192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=SUBJECTS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--adapt", action="store_true", help="repair by default, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in args.networks:
        told: dict[str, list[float]] = {}
        for way, row in rows(SUBJECTS[name](args.data), args.adapt):
            for judge, value in row.items():
                told.setdefault(judge, []).append(value)
            print(
                f"{name:10} {way:26} " + "  ".join(f"{judge} {value:.4f}" for judge, value in row.items()), flush=True
            )
        for judge in ("held out", "crossed", "in-sample"):
            chosen = told["refit"][min(range(len(told[judge])), key=told[judge].__getitem__)]
            agreement, excess = spearmanr(told[judge], told["refit"]).statistic, chosen / min(told["refit"])
            print(f"{name:10} {judge}: rank correlation {agreement:.2f}, its choice {excess:.2f} times the best one")


def rows(subject: Subject, adapts: bool) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield a row for each way to allocate: divergences by simulations and on the test images."""
    model, data = subject.model, subject.batches
    dense = _seconds(lambda: [subject.run(batch) for batch in data])
    network = sc.trace(model, data[0][:2])
    scores = sc.score(network, data, by="obs", progress=False)
    microbatches = split_microbatches(as_batches(data), torch.device("cpu"))
    whole, config = PlanSimulator(Calibration(network, microbatches)), PruneConfig()
    ways = candidate_allocations(whole, scores, config)
    kinds = {network[name].kind for name in scores}
    ways += [Allocation(("uniform",), whole=("residual",))] if "residual" in kinds else []
    allocator = PlanSearch(whole, scores, config, None, ways)
    in_sample = whole.quick(SIMULATED)
    examples = [microbatch for fold in in_sample.folds for microbatch in fold.fitted.microbatches]
    both = quick_execution(whole.fitted.within, examples, whole.fitted.memory)
    in_sample.judge_by([Fold(both, both)])
    judges = {
        "held out": whole.quick_held_out(HELD_OUT), "crossed": whole.quick(SIMULATED), "in-sample": in_sample,
    }  # fmt: skip
    for way in ways:
        plan, row = allocator.plan(subject.keep, way), dict[str, float]()
        for judge, simulator in judges.items():
            start = time.process_time()
            row[judge] = simulator.divergence(plan.kept)
            row[f"{judge} F"] = (time.process_time() - start) / dense
        for name, how in {"refit": "refit", **({"adapt": ("refit", "adapt")} if adapts else {})}.items():
            quality = subject.quality(sc.repair(sc.cut(model, plan), model, plan, data, how, progress=False))
            row |= {name: quality["divergence"], f"{name} accuracy": quality["accuracy"]}
        measured = "measured" if way.curves is not None else "estimated"
        label = "+".join(way.names) + (f", {measured}" if "loss" in way.names else "")
        yield label + (", widths whole" if way.whole else ""), row


@torch.no_grad()
def _seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


if __name__ == "__main__":
    main()
