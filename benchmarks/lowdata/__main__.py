"""Measure, or write the page from what was measured.

    python -m benchmarks lowdata --data DIR [--networks vgg] [--seeds 0] [--quick]
    python -m benchmarks lowdata --page

DIR holds the four Fashion-MNIST files, as for `examples/train_demo_network.py`. One thread; about a quarter of an hour
for each network and seed, a minute with --quick. Every row goes to a file in `benchmarks/results/lowdata/`, where the
page finds it. Measuring all rows needs torch-pruning (`pip install --no-deps torch-pruning==1.6.1`); --quick and --page
do without it.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from networks.trained import SEEDS
from provenance import provenance, results_folder

from lowdata.ours import Row, default, rankings
from lowdata.page import write_page
from lowdata.subjects import NETWORKS, Subject, subjects

RESULTS = results_folder("lowdata")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--quick", action="store_true", help="one budget, no training")
    parser.add_argument("--page", action="store_true", help="write docs/lowdata.md from the results")
    args = parser.parse_args()
    if args.page:
        write_page(RESULTS, Path("docs"))
        return
    torch.set_num_threads(1)
    for subject in subjects(args.data, args.networks, args.seeds):
        rows = quick(subject) if args.quick else full(subject)
        kept = run(subject, rows)
        if not args.quick:
            text = "\n".join(json.dumps({**row, "run": provenance()}) for row in kept)
            (RESULTS / f"{subject.name}-{subject.seed}.jsonl").write_text(text + "\n")


def full(subject: Subject) -> Iterator[Row]:
    from lowdata.peers import peers  # noqa: PLC0415 (only these rows need torch-pruning)

    yield {"network": subject.name, "seed": subject.seed, "method": "dense", "repair": "none", "keep": 1.0, "macs": 1.0,
           "accuracy": subject.accuracy(subject.model()), "seconds": 0.0, "examples": 0}  # fmt: skip
    yield from default(subject)
    if subject.seed == 0:
        for examples in (32, 128, 512):
            yield from default(subject, (0.5, 0.25), examples)
        yield from rankings(subject)
        yield from peers(subject)
    else:
        yield from peers(subject, ("L2",))


def quick(subject: Subject) -> Iterator[Row]:
    yield from (row for row in default(subject, (0.35,)))


def run(subject: Subject, rows: Iterable[Row]) -> list[Row]:
    kept = []
    for row in rows:
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}, flush=True)
        kept.append(row)
    return kept


if __name__ == "__main__":
    main()
