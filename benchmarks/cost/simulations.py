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
from collections.abc import Iterator
from pathlib import Path

import torch
from processor_time import processor_seconds
from scipy.stats import spearmanr

import secateur as sc
from cost.subjects import SUBJECTS, CostSubject
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
    """Read the options, and print the rows of each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=SUBJECTS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--adapt", action="store_true", help="repair by default, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in args.networks:
        columns: dict[str, list[float]] = {}
        for allocation, row in simulation_rows(SUBJECTS[name](args.data), args.adapt):
            for judge, value in row.items():
                columns.setdefault(judge, []).append(value)
            values = "  ".join(f"{judge} {value:.4f}" for judge, value in row.items())
            print(f"{name:10} {allocation:26} {values}", flush=True)
        for judge in ("held out", "crossed", "in-sample"):
            chosen = columns["refit"][min(range(len(columns[judge])), key=columns[judge].__getitem__)]
            agreement, excess = spearmanr(columns[judge], columns["refit"]).statistic, chosen / min(columns["refit"])
            print(f"{name:10} {judge}: rank correlation {agreement:.2f}, its choice {excess:.2f} times the best one")


def simulation_rows(subject: CostSubject, adapts: bool) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield a row for each allocation: divergences by simulations and on the test images.

    Args:
        subject: the network.
        adapts: also repair by default.
    """
    model, data = subject.model, subject.batches
    with torch.no_grad():
        dense = processor_seconds(lambda: [subject.run(batch) for batch in data])
    network = sc.trace(model, data[0][:2])
    scores = sc.score(network, data, by="obs", progress=False)
    microbatches = split_microbatches(as_batches(data), torch.device("cpu"))
    whole, config = PlanSimulator(Calibration(network, microbatches)), PruneConfig()
    allocations = candidate_allocations(whole, scores, config)
    kinds = {network[name].kind for name in scores}
    allocations += [Allocation(("uniform",), whole=("residual",))] if "residual" in kinds else []
    search = PlanSearch(whole, scores, config, None, allocations)
    judges = _judges(whole)
    repairs = {"refit": ("refit",), **({"adapt": ("refit", "adapt")} if adapts else {})}
    for allocation in allocations:
        plan, row = search.plan(subject.keep, allocation), dict[str, float]()
        for judge, simulator in judges.items():
            start = time.process_time()
            row[judge] = simulator.divergence(plan.kept)
            row[f"{judge} F"] = (time.process_time() - start) / dense
        for name, chain in repairs.items():
            quality = subject.quality(sc.repair(sc.cut(model, plan), model, plan, data, chain, progress=False))
            row |= {name: quality["divergence"], f"{name} accuracy": quality["accuracy"]}
        yield _label(allocation), row


def _judges(whole: PlanSimulator) -> dict[str, PlanSimulator]:
    """Return the three simulations by their names."""
    in_sample = whole.quick(SIMULATED)
    examples = [microbatch for fold in in_sample.folds for microbatch in fold.fitted.microbatches]
    both = quick_execution(whole.fitted.cut_network, examples, whole.fitted.memory)
    in_sample.set_folds([Fold(both, both)])
    held_out, crossed = whole.quick_held_out(HELD_OUT), whole.quick(SIMULATED)
    return {"held out": held_out, "crossed": crossed, "in-sample": in_sample}


def _label(allocation: Allocation) -> str:
    measured = "measured" if allocation.curves is not None else "estimated"
    label = "+".join(allocation.names) + (f", {measured}" if "loss" in allocation.names else "")
    return label + (", widths whole" if allocation.whole else "")


if __name__ == "__main__":
    main()
