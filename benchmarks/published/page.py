"""The page of what was measured on published networks."""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path

from published.allocation_tables import chosen_table, table, version_table
from published.methods import BOUND, LABELS
from published.photo_tables import is_of_photos, photo_sections

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
  that of a difference between two methods is smaller, because they are tested on the same images). Speech Commands,
  496 clips of words (the standard error of 96 % is .9 points). CamVid, 78 images at 480 x 360.
- **Secateur** uses all images (`holdout=0`), because the test images are others. A budget is an upper limit: where
  sizes that fill the kernels of the processor are chosen, fewer MACs may remain, and the cell then says how many.
- **Seconds** are processor seconds of one thread for everything from the dense network to the small one. **Passes** are
  the same in forward passes of the dense network over the same images, timed in the same process.
- No method but `tune` takes gradient steps through the network: up to 600, towards the features that the dense
  network's last layer reads, without labels ([repair.md](repair.md)).
"""


GOALS = {
    ("ResNet-56", 256, 0.5): 1.0,
    ("ResNet-56", 256, 0.35): 2.5,
    ("ResNet-20", 256, 0.75): 1.0,
    ("ResNet-20", 256, 0.5): 3.0,
    ("ResNet-20", 1024, 0.5): 2.0,
    ("ESPNet", 62, 0.75): 3.0,
}
"""The points of accuracy that the default may lose: of a network, with so many images, at a fraction of the MACs."""
REASONS = """What is known of the reasons, from ResNet-20 with 256 images at half of its MACs (docs/design.md,
"Repairs are judged at a temperature", has the figures):

- The repair does not overfit to the harm of other images. More images in all steps of `adapt` lower the divergence on
  test images at one plan from .41 to .36, but flipped, shifted or mixed ones do not, and more steps lower it to .38
  without a change of the accuracy.
- Plans differ more. With the same repair, six plans for this budget are between .35 and .50 on test images. When these
  rows were measured, they were told apart by a quick refit on the images that judged it, which prefers plans that fit
  these images: the best of the six was the second in the simulation. Other images than those of the refit judge now.
- Behind blocks that keep a quarter of their channels or less, the error of the residual stream is .14 to .3 of its
  variance, on images that were fitted as on others. Later layers correct it only as far as a few hundred images show.
- A training adds half a point to the first draw (85.70 to 86.20 %), for 670 further passes, so that `tune` is no part
  of the default. In a trial with 64 other images held out, their divergence fell no further after 134 steps: the images
  and the plan bound it, not the number of steps.
- The first draw is of 0.13.0, whose plans are judged crosswise; with the plan of 0.11.0 it had 86.35 %.
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


FEWER = 0.03  # of the MACs than the budget allows, where a cell says how many there are
VERSIONS = """Versions 0.10.0 and 0.11.0 compared plans on the examples that they had been refitted on. Their mean
excess in these cases was 15.4 %, 188 % at most. The rows of 0.12.0 are from its source on the way to the next
version, which compares plans on the other half of the examples (docs/design.md, "Plans are judged by examples that
they were not refitted on").
"""
ALONE = """## Dense networks alone

The command has these networks, too. No smaller ones were measured yet: each row takes a quarter of an hour of one core
or more.

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
        if measured and not is_of_photos(network):
            parts.append(_section(network, accuracy, [row for row in measured if row["method"] != BOUND]))
            parts += [_bound_line(row, accuracy) for row in measured if row["method"] == BOUND]
    of_dense = {row["network"]: row for row in known if row["method"] == "dense" and is_of_photos(row["network"])}
    parts += photo_sections(of_dense.values(), list(latest.values()))
    parts += _dense_alone(dense, latest.values())
    parts.append(f"{_goals_table(dense, latest.values())}\n{REASONS}")
    failed = {(row["network"], row["method"]): row["error"] for row in known if "error" in row}
    parts += [f"{LABELS[method]} fails on {network}: `{error}`\n" for (network, method), error in failed.items()]
    if allocations.exists():
        cases = [json.loads(line) for line in allocations.read_text().splitlines()]
        parts += [ALLOCATIONS, f"{table(cases)}\n", VERSIONS, f"{version_table(cases)}\n", chosen_table(cases)]
    (folder / "published.md").write_text("\n".join(parts), encoding="utf-8")


def _dense_alone(dense: dict[str, float], rows: Iterable[dict[str, object]]) -> list[str]:
    """Return a section on the networks of which the dense one alone was measured; none without such networks."""
    measured = {str(row["network"]).partition(", ")[0] for row in rows}
    lines = {
        f"- {network}: {MEASURES.get(network, 'accuracy')} {accuracy:.1%}.": None
        for network, accuracy in ((name.partition(", ")[0], value) for name, value in dense.items())
        if network not in measured
    }
    return [ALONE + "\n".join(lines) + "\n"] if lines else []


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
        lines += ["", f"{images:,} examples; {measure} in %, and in brackets the number of draws.", ""]
        costs = {"seconds": "processor seconds"}
        if any("passes" in row for row in of_images):
            costs["passes"] = "passes"
        columns = ["method", *(f"{keep:.0%} of the MACs" for keep in keeps), *costs]
        lines.append(f"| {' | '.join(columns)} |\n|---|" + "--:|" * (len(columns) - 1))
        for method in LABELS:
            of_method = [row for row in of_images if row["method"] == method]
            if of_method:
                cells = [_cell([row for row in of_method if row["keep"] == keep]) for keep in keeps]
                cells += [_mean_of(of_method, name) for name in costs.values()]
                lines.append(f"| {LABELS[method]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _mean_of(rows: list[dict[str, float]], name: str) -> str:
    """Return the mean of a value over the rows that have it; "" where none has."""
    values = [row[name] for row in rows if name in row]
    return f"{statistics.mean(values):.0f}" if values else ""


def _bound_line(row: dict[str, float], dense: float) -> str:
    """Return a paragraph on the smallest network within a bound on the metric."""
    measure = MEASURES.get(str(row["network"]), "accuracy")
    return (
        f"The smallest network that loses at most {-100 * row['keep']:.0f} points of {measure}, by `metric=` and the "
        f"labels of a quarter of {row['images']} labelled examples, has {row['macs']:.0%} of the MACs. It loses "
        f"{100 * (dense - row['accuracy']):.1f} points on the test images ({row['accuracy']:.2%}; "
        f"{row['processor seconds']:.0f} s, {row['passes']:.0f} passes).\n"
    )


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
    macs = statistics.mean(row["macs"] for row in rows)
    fewer = f"; {macs:.0%} of the MACs" if macs < rows[0]["keep"] - FEWER else ""
    return f"{statistics.mean(values):.2f}{error} ({len(values)}{fewer})"
