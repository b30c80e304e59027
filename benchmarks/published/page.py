"""The page of what was measured on published networks."""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path

from published.allocation_tables import chosen_table, table
from published.methods import LABELS

INTRODUCTION = """# Published networks

Networks that others trained, real data, and other methods without training in the same run. Every row of every table is
what the command measured first; nothing was chosen afterwards. Empty cells were not measured.

    python -m benchmarks published --data DIR
    python -m benchmarks published --page

The first command measures, row by row, into `benchmarks/results/published/rows.jsonl`; its help says where the data
are from. The second writes this page from the rows.

- **Images** are drawn from the training set, without labels and without augmentation, anew for each draw. Clips of
  Speech Commands are from its test set, others than those that are tested on.
- **Test**: CIFAR-10, every fifth of the 10,000 test images (the standard error of an accuracy of 90 % is .7 points;
  that of a difference between two methods is smaller, because they are tested on the same images).
- **Secateur** uses all images (`holdout=0`), because the test images are others.
- **Seconds** are processor seconds of one thread for everything from the dense network to the small one.
- No method takes a gradient step on a loss of the network.
"""


GOALS = {
    ("ResNet-56", 256, 0.5): 1.0,
    ("ResNet-56", 256, 0.35): 2.5,
    ("ResNet-20", 256, 0.75): 1.0,
    ("ResNet-20", 256, 0.5): 3.0,
    ("ResNet-20", 1024, 0.5): 2.0,
}
"""The points of accuracy that the default may lose: of a network, with so many images, at a fraction of the MACs."""
REASONS = """What is known of the reasons, from ResNet-20 with 256 images at half of its MACs (docs/design.md,
"Repairs are judged at a temperature", has the figures):

- The repair does not overfit to the harm of other images. More images in all steps of `adapt` lower the divergence on
  test images at one plan from .41 to .36, but flipped, shifted or mixed ones do not, and more steps lower it to .38
  without a change of the accuracy.
- Plans differ more. With the same repair, six plans for this budget are between .35 and .50 on test images. They are
  told apart by a quick refit on the images that judge it, which prefers plans that fit these images: the best of the
  six was the second in the simulation.
- Behind blocks that keep a quarter of their channels or less, the error of the residual stream is .14 to .3 of its
  variance, on images that were fitted as on others. Later layers correct it only as far as a few hundred images show.
- The rows with 1,024 images are from before `adapt` used more than 192 of them.
"""


ALLOCATIONS = """## The default beside each single allocation

    python -m benchmarks published.allocations --data DIR
    python -m benchmarks published.allocations --table

A plan other than the simplest one may be chosen because of noise, most of all with few examples. For each case (a
network, 32 or 64 examples without labels, a draw of them) `obs` scores the units once; every allocation that the
default tries makes a plan of any sizes for the same MACs (25 % of the demo network and of the separable one, 20 % of
the VGG-like one, 60 % of BC-ResNet-2, 50 % of ResNet-20), which is cut, refitted, and compared with the dense network
on about 500 test examples. The excess of a divergence is that over the best single allocation of the case, its mean the
geometric one. The last column counts the cases in which the default came at least as near to the dense network.
"""


MEASURES = {"ESPNet": "mean intersection over union"}


def write_page(rows: Path, allocations: Path, folder: Path) -> None:
    """Write published.md to a folder from rows of JSON: of methods, and of single allocations."""
    known = [json.loads(line) for line in rows.read_text().splitlines()]
    dense = {row["network"]: row["accuracy"] for row in known if row["method"] == "dense"}
    latest = {_key(row): row for row in known if row["method"] != "dense" and "error" not in row}
    parts = [INTRODUCTION, _machines(latest.values())]
    for network, accuracy in dense.items():
        measured = [row for row in latest.values() if row["network"] == network]
        if measured:
            parts.append(_section(network, accuracy, measured))
    parts.append(f"{_goals_table(dense, latest.values())}\n{REASONS}")
    failed = {(row["network"], row["method"]): row["error"] for row in known if "error" in row}
    parts += [f"{LABELS[method]} fails on {network}: `{error}`\n" for (network, method), error in failed.items()]
    if allocations.exists():
        cases = [json.loads(line) for line in allocations.read_text().splitlines()]
        parts += [ALLOCATIONS, f"{table(cases)}\n", chosen_table(cases)]
    (folder / "published.md").write_text("\n".join(parts), encoding="utf-8")


def _key(row: dict[str, object]) -> tuple[object, ...]:
    return tuple(row[name] for name in ("network", "keep", "images", "draw", "method"))


def _machines(rows: Iterable[dict[str, dict[str, object]]]) -> str:
    runs = sorted(
        {
            f"version {row['run']['version']}, torch {row['run']['torch']}, {row['run']['processor']}, one thread"
            for row in rows
        }
    )
    return f"- **Measured with** {'; '.join(runs)}.\n"


def _section(network: str, dense: float, rows: list[dict[str, float]]) -> str:
    """Return the tables of a network, one for each number of images."""
    measure = MEASURES.get(network, "accuracy")
    lines = [f"## {network}", "", f"Of the dense network: {measure} {dense:.2%}."]
    keeps = sorted({row["keep"] for row in rows}, reverse=True)
    for images in sorted({row["images"] for row in rows}):
        of_images = [row for row in rows if row["images"] == images]
        lines += ["", f"{images} examples; {measure} in %, and in brackets the number of draws.", ""]
        lines.append("| method | " + " | ".join(f"{keep:.0%} of the MACs" for keep in keeps) + " | seconds |")
        lines.append("|---|" + "--:|" * (len(keeps) + 1))
        for method in LABELS:
            of_method = [row for row in of_images if row["method"] == method]
            if of_method:
                cells = [_cell([row for row in of_method if row["keep"] == keep]) for keep in keeps]
                seconds = statistics.mean(row["processor seconds"] for row in of_method)
                lines.append(f"| {LABELS[method]} | " + " | ".join(cells) + f" | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def _goals_table(dense: dict[str, float], rows: Iterable[dict[str, float]]) -> str:
    """Return a table of the points that the default loses in the mean over draws, beside the goals."""
    lines = ["## Goals", "", "| network, images | MACs | points lost, mean (draws) | goal |", "|---|--:|--:|--:|"]
    of_default = [row for row in rows if row["method"] == "default"]
    for (network, images, keep), goal in GOALS.items():
        key = (network, images, keep)
        lost = [
            100 * (dense[network] - row["accuracy"])
            for row in of_default
            if (row["network"], row["images"], row["keep"]) == key
        ]
        if lost:
            mean = f"{statistics.mean(lost):.1f} ({len(lost)})"
            lines.append(f"| {network}, {images:,} | {keep:.0%} | {mean} | {goal:.1f} |")
    return "\n".join(lines) + "\n"


def _cell(rows: list[dict[str, float]]) -> str:
    """Return the mean accuracy over draws with its standard error where there are several."""
    if not rows:
        return ""
    values = [100 * row["accuracy"] for row in rows]
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{error} ({len(values)})"
