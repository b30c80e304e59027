"""Measure accuracies after pruning with few images, or write the page from the rows of results.

    python -m benchmarks lowdata --data DIR [--networks vgg] [--seeds 0] [--quick]
    python -m benchmarks lowdata --page

DIR holds the four Fashion-MNIST files, as for `examples/train_demo_network.py`. One thread; about a quarter of an hour
for each network and seed, a minute with --quick. Every row goes to a file in `benchmarks/results/lowdata/`, where the
page finds it. Measuring all rows needs torch-pruning (`pip install --no-deps torch-pruning==1.6.1`); --quick and --page
do without it.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from networks.trained import SEEDS
from provenance import results_folder
from rows import row_with_provenance

from lowdata.ours import Row, default_rows, ranking_rows
from lowdata.page import write_page
from lowdata.subjects import NETWORKS, FashionSubject, fashion_subjects

RESULTS = results_folder("lowdata")


def main() -> None:
    """Read the options, then measure or write the page."""
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
    for subject in fashion_subjects(args.data, args.networks, args.seeds):
        rows = default_rows(subject, (0.35,)) if args.quick else full_rows(subject)
        measured = print_rows(rows)
        if not args.quick:
            text = "\n".join(row_with_provenance(row) for row in measured)
            (RESULTS / f"{subject.name}-{subject.seed}.jsonl").write_text(text + "\n")


def full_rows(subject: FashionSubject) -> Iterator[Row]:
    """Yield all rows of a network; most of them are of seed 0 alone."""
    from lowdata.peers import peer_rows  # noqa: PLC0415 (only these rows need torch-pruning)

    yield {"network": subject.name, "seed": subject.seed, "method": "dense", "repair": "none", "keep": 1.0, "macs": 1.0,
           "accuracy": subject.accuracy(subject.model()), "seconds": 0.0, "examples": 0}  # fmt: skip
    yield from default_rows(subject)
    if subject.seed == 0:
        for examples in (32, 128, 512):
            yield from default_rows(subject, (0.5, 0.25), examples)
        yield from ranking_rows(subject)
        yield from peer_rows(subject)
    else:
        yield from peer_rows(subject, ("L2",))


def print_rows(rows: Iterable[Row]) -> list[Row]:
    """Print rows as they are measured, and return them."""
    printed = []
    for row in rows:
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}, flush=True)
        printed.append(row)
    return printed


if __name__ == "__main__":
    main()
