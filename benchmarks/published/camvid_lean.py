"""LEAN and its two baselines on ESPNet and CamVid, with and without fine-tuning: the paper's experiment in small.

    python -m benchmarks published.camvid_lean --data DIR [--kernels 0.5 0.25] [--by lean norm l1]
    python -m benchmarks published --page

DIR is that of `python -m benchmarks published`. The 62 training images are used without labels; fine-tuning trains
towards the dense network's outputs. The paper has 15 rounds of three epochs each.
One thread. Each fraction of kernels, criterion and number of rounds is a row, appended to a file in
`benchmarks/results/published/`; rows that the file has of the same version are left out.
"""

import argparse
import itertools
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from provenance import provenance, results_folder
from rows import append_row, markdown_table, read_rows
from torch import Tensor

from published.camvid import BATCH, camvid_subject
from published.subject import PublishedSubject
from secateur.sparsity import lean

ROWS = results_folder("published") / "camvid_lean.jsonl"
LABELS = {"lean": "LEAN", "norm": "single kernels by operator norm", "l1": "single kernels by L1"}
ROUNDS, STEPS = 4, 16
"""With fine-tuning: the rounds, and the steps of each, which are one epoch."""


@dataclass(frozen=True)
class LeanRequest:
    """One row of the experiment.

    Args:
        kernels: the fraction of kernels that is kept.
        by: the criterion.
        tuned: whether the network is fine-tuned in rounds, or pruned at once.
    """

    kernels: float
    by: str
    tuned: bool


def main() -> None:
    """Read the options and append the rows that the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kernels", nargs="+", type=float, default=[0.8, 0.5, 0.25])
    parser.add_argument("--by", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--out", type=Path, default=ROWS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    subject = camvid_subject(args.data)
    requests = [LeanRequest(*values) for values in itertools.product(args.kernels, args.by, (False, True))]
    version = provenance()["version"]
    rows = read_rows(args.out) if args.out.exists() else []
    known = {request_of(row) for row in rows if row["run"]["version"] == version}
    for request in requests:
        if request not in known:
            row = lean_row(subject, subject.images.split(BATCH), request)
            print(row, flush=True)
            append_row(args.out, row)


def lean_row(subject: PublishedSubject, batches: Sequence[Tensor], request: LeanRequest) -> dict[str, object]:
    """Prune the network of a subject, and return the measures, the cost and the counts of kernels.

    Args:
        subject: the network and its test images.
        batches: images without labels.
        request: what is pruned, and how.
    """
    start = time.process_time()
    training = {"rounds": ROUNDS, "tuning_steps": STEPS, "batch_size": BATCH} if request.tuned else {}
    result = lean(subject.dense, list(batches), {"kernels": request.kernels}, by=request.by, progress=False, **training)
    dense, remaining = result.kernels
    return {
        "network": subject.network,
        "images": sum(map(len, batches)),
        "kernels": request.kernels,
        "by": request.by,
        "tuned": request.tuned,
        "kept": remaining / dense,
        "macs": result.plan.cost.macs / result.plan.dense.macs,
        **subject.measures(result.model),
        "processor seconds": time.process_time() - start,
    }


def request_of(row: Mapping[str, object]) -> LeanRequest:
    """Return the request that a row answers."""
    return LeanRequest(float(str(row["kernels"])), str(row["by"]), bool(row["tuned"]))


def lean_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a table of the latest row of each request, a line for each fraction and criterion."""
    latest = {request_of(row): row for row in rows}
    lines = []
    for kernels, by in sorted({(request.kernels, request.by) for request in latest}, key=_line_order):
        cells = [_cells_of(latest.get(LeanRequest(kernels, by, tuned))) for tuned in (False, True)]
        lines.append([LABELS[by], f"{kernels:.0%}", *cells[0], *cells[1]])
    columns = ["mean IoU", "MACs", "seconds"]
    tuned = [f"{column}, fine-tuned" for column in columns]
    return markdown_table(["criterion", "kernels", *columns, *tuned], lines)


def _line_order(line: tuple[float, str]) -> tuple[float, int]:
    return -line[0], list(LABELS).index(line[1])


def _cells_of(row: Mapping[str, object] | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    accuracy, macs, seconds = (float(str(row[name])) for name in ("accuracy", "macs", "processor seconds"))
    return [f"{accuracy:.1%}", f"{macs:.0%}", f"{seconds:.0f}"]


if __name__ == "__main__":
    main()
