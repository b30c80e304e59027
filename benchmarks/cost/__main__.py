"""Measure the cost of `prune`, stage by stage, and the quality of the small network.

    OMP_NUM_THREADS=1 python -m benchmarks cost demo demo-64 resnet20 resnet56 --data DIR --out FILE
    OMP_NUM_THREADS=1 python -m benchmarks cost resnet18-64 mobilenet-128 bert-2 --profile

Figures are multiples of one forward pass of the dense network over the same examples, in batches of 32, on one thread
of the same process. Without `--count` they are processor time; with it they are floating-point operations of products
and of factorizations, those in float64 counted twice, tracing left out. DIR holds `cifar10.npz` (arrays xtrain and
xtest, (images, 32, 32, 3) of bytes, and ytest) and the CIFAR ResNets of He et al. as safetensors, for the networks that
need them. Each network takes between half a minute and half an hour. `--out` appends a line of JSON for each. The last
figure is by how much the process's peak of memory rose with the prune, in GiB: of one network in a process of its own.
`--profile` also prints what the time is spent on, by kind of work and stage, in percent; `cost/work.py` has the kinds.
"""

import argparse
import resource
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rows import append_row
from tqdm import tqdm

import secateur as sc
from cost.counting import FlopCounter, uncounted
from cost.stages import STAGES, TimeSampler
from cost.subjects import SUBJECTS, CostSubject
from cost.work import kind_shares, print_profile
from secateur.pruning import request

PASSES = 3


def main() -> None:
    """Read the options, and print the row of each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=SUBJECTS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--count", action="store_true", help="count operations in place of processor time")
    parser.add_argument("--profile", action="store_true", help="print the shares of kinds of work, of processor time")
    parser.add_argument("--out", type=Path, help="a file to append the rows to, as lines of JSON")
    args = parser.parse_args()
    if args.count and args.profile:
        parser.error("--profile is of processor time, which --count does not measure")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(
        f"{'network':12} {'total':>7} " + " ".join(f"{stage:>10}" for stage in STAGES) + "   dense s     GiB  quality"
    )
    for name in args.networks:
        row, seconds = measure_cost(name, SUBJECTS[name](args.data), args.count)
        stages = " ".join(f"{row['stages'][stage]:10.1f}" for stage in STAGES)
        quality = " ".join(f"{key} {value:.4f}" for key, value in row["quality"].items())
        print(f"{name:12} {row['total']:7.1f} {stages} {row['dense']:9.3g} {row['memory']:7.2f}  {quality}", flush=True)
        if args.profile:
            print_profile(seconds, STAGES)
        if args.out is not None:
            append_row(args.out, row)


def measure_cost(
    name: str, subject: CostSubject, counts: bool
) -> tuple[dict[str, Any], Mapping[tuple[str, str], float]]:
    """Prune a network.

    Args:
        name: the name of the network.
        subject: the network.
        counts: count operations in place of processor time.

    Returns:
        The row, with costs as multiples of the forward pass over the same examples, and the seconds of processor time
        by stage and place of the source, which are empty for counts.
    """
    tqdm.monitor_interval = 0
    dense = _forward_operations(subject) if counts else min(_forward_seconds(subject) for _ in range(PASSES))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: Mapping[tuple[str, str], float] = {}
    if counts:
        with mock.patch.object(request, "trace", uncounted(request.trace)), FlopCounter() as counter:
            result = _prune_subject(subject)
        spent = {stage: counter.by_stage.get(stage, 0) for stage in STAGES}
    else:
        with TimeSampler() as sampler:
            result = _prune_subject(subject)
        spent, seconds = sampler.by_stage(), sampler.seconds
        dense = min(dense, _forward_seconds(subject))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    stages = {stage: value / dense for stage, value in spent.items()}
    macs = result.plan.cost.macs / result.plan.dense.macs
    quality = {"macs": macs, **subject.quality(result.model)}
    unit = "operations" if counts else "seconds"
    row = {"network": name, "unit": unit, "dense": dense, "total": sum(stages.values()), "stages": stages,
           "memory": peak / 2**20, "quality": quality}  # fmt: skip
    kinds = kind_shares(seconds)
    return row | ({"kinds": kinds} if kinds else {}), seconds


def _prune_subject(subject: CostSubject) -> sc.Result:
    return sc.prune(subject.model, subject.batches, subject.keep, test=subject.batches[:1], progress=False)


@torch.no_grad()
def _forward_seconds(subject: CostSubject) -> float:
    start = time.process_time()
    for batch in subject.batches:
        subject.run(batch)
    return time.process_time() - start


@torch.no_grad()
def _forward_operations(subject: CostSubject) -> float:
    with FlopCounter() as counter:
        for batch in subject.batches:
            subject.run(batch)
    return sum(counter.by_stage.values())


if __name__ == "__main__":
    main()
