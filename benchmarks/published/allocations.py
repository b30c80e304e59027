"""The allocation that is chosen by simulation, beside each single allocation, with few examples.

    python -m benchmarks published.allocations --data DIR [--networks demo ResNet-20] [--examples 32 64]
    python -m benchmarks published.allocations --table

For each network, number of examples and draw, `obs` scores the units once. Every allocation that the default tries
makes a plan for the same MACs, with sizes of any kind, and is cut, refitted and measured on test examples: its
divergence from the dense network and its accuracy. The row of the default names the allocation that it chose from
the same examples. `--table` prints the mean excess of the divergence over that of the best single allocation, and how
often the default's divergence is at most that of each single one. DIR as for `python -m benchmarks published`; the
networks demo, separable and vgg need none.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from networks.trained import trained
from provenance import results_folder
from rows import append_row, read_rows
from torch import nn

import secateur as sc
from published.allocation_tables import excess_table
from published.cifar import cifar_subject
from published.speech import speech_subject
from published.subject import PublishedSubject, outputs_in_batches
from secateur import demo
from secateur.allocation.candidates import candidate_allocations
from secateur.allocation.config import DEFAULTS
from secateur.allocation.plan_sizes import Allocation
from secateur.allocation.search import PlanSearch
from secateur.allocation.simulate import PlanSimulator
from secateur.allocation.tied_groups import tie_groups
from secateur.data.conversion import as_batches
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.divergence import divergence
from secateur.graph.parametrizations import bake_parametrizations
from secateur.importance.context import network_microbatches

ROWS = results_folder("published") / "allocations.jsonl"
BUDGETS = {"demo": 0.25, "separable": 0.25, "vgg": 0.2, "ResNet-20": 0.5, "BC-ResNet-2": 0.6, "ResNet-56": 0.5}
TESTED = 500  # examples, about


def allocation_subject(network: str, folder: Path | None) -> PublishedSubject:
    """Return a network with examples."""
    if network in ("demo", "separable", "vgg"):
        tests = demo.test()
        images, labels = (torch.cat(batches) for batches in zip(*tests, strict=True))
        model = trained("residual" if network == "demo" else network)
        return PublishedSubject(network, torch.cat(demo.calibration()), images, labels, model)
    assert folder is not None
    return speech_subject(folder) if network == "BC-ResNet-2" else cifar_subject(folder, int(network[-2:]))


def allocation_name(allocation: Allocation) -> str:
    """Return the name of an allocation in the table."""
    name = "+".join(allocation.names)
    if allocation.whole:
        return f"{name}, residual widths whole"
    if name == "loss":
        return "loss, estimated" if allocation.curves is None else "loss, measured"
    return name


def allocation_rows(subject: PublishedSubject, examples: int, draw: int) -> Iterator[dict[str, object]]:
    """Yield a row for each single allocation, and one for the default."""
    model, data, keep = subject.dense, subject.draw(examples, draw), {"macs": BUDGETS[subject.network]}
    network = sc.trace(model, data[0][:2])
    scores = sc.score(network, data, by="obs", progress=False)
    microbatches = network_microbatches(network, as_batches(data))
    tied = tie_groups(network, scores)
    calibration = Calibration(tied.network, microbatches, bake_parametrizations(model))
    config, simulator = replace(DEFAULTS, target="any"), PlanSimulator(calibration)
    allocations = candidate_allocations(simulator, tied.scores, config)
    search = PlanSearch(simulator, tied, config, None, allocations)
    start = time.process_time()
    chosen = search.best_of_allocations(keep)
    seconds = time.process_time() - start
    key = {"network": subject.network, "examples": examples, "draw": draw, "keep": keep["macs"]}
    for allocation in allocations:
        plan = tied.separate(search.plan(keep, allocation))
        small = sc.repair(sc.cut(model, plan), model, plan, data, "refit", progress=False)
        name, macs = allocation_name(allocation), plan.cost.macs / plan.dense.macs
        row: dict[str, object] = {"allocation": name, "macs": macs, **_test_measures(subject, small)}
        yield {**key, **row}
        if allocation is chosen.allocation:
            yield {**key, **row, "allocation": "default", "chosen": row["allocation"], "seconds": seconds}


def _test_measures(subject: PublishedSubject, small: nn.Module) -> dict[str, float]:
    """Return the divergence from the dense network on about 500 test examples, and both accuracies."""
    step = max(len(subject.test_images) // TESTED, 1)  # some are sorted by class
    tests, labels = subject.test_images[::step], subject.test_labels[::step]
    dense, output = (outputs_in_batches(model, tests) for model in (subject.dense, small))
    return {
        "divergence": float(divergence(output, dense).mean()),
        "accuracy": float((output.argmax(1) == labels).double().mean()),
        "dense accuracy": float((dense.argmax(1) == labels).double().mean()),
    }


def main() -> None:
    """Read the options, then measure or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(BUDGETS), choices=BUDGETS)
    parser.add_argument("--examples", nargs="+", type=int, default=[32, 64, 256])
    parser.add_argument("--draws", nargs="+", type=int, default=[0])
    parser.add_argument("--table", action="store_true", help="print the table of the rows of results")
    args = parser.parse_args()
    if args.table:
        print(excess_table(read_rows(ROWS)))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for network in args.networks:
        subject = allocation_subject(network, args.data)
        for examples in args.examples:
            for draw in args.draws:
                for row in allocation_rows(subject, examples, draw):
                    print(row, flush=True)
                    append_row(ROWS, row)


if __name__ == "__main__":
    main()
