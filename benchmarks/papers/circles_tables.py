"""The tables and the plot of LEAN's experiment on the published images and network."""

import numpy as np
from matplotlib.figure import Figure

from papers.circle_files import METHODS, STEPS, TARGET
from papers.circles import KEPT, PUBLISHED, draw_accuracies
from papers.settings import Row

PUBLISHED_LEAN = (
    0.9527, 0.9535, 0.9535, 0.9524, 0.9514, 0.9474, 0.9477, 0.9382, 0.9389, 0.9349, 0.9348, 0.9260, 0.9252, 0.9113,
    0.9030,
)  # fmt: skip
SHOWN = tuple(
    min(range(1, STEPS + 1), key=lambda step, keep=keep: abs(TARGET ** (step / STEPS) - keep)) for keep in KEPT
)


def published_circle_figure(rows: list[Row]) -> Figure:
    """Return a plot of the accuracy against the kernels kept, ours (lines) and published (dashed)."""
    lines = {
        by: {float(row["asked"]): float(row["test"]) for row in rows if row["by"] == by and row.get("tuned") is True}  # type: ignore[arg-type]
        for by in PUBLISHED
    }
    return draw_accuracies(lines, ".")


def published_circle_tables(rows: list[Row]) -> list[str]:
    """Return the lines of the tables: accuracies beside the published ones, and the agreement of masks."""
    dense = next((row for row in rows if row["by"] == "dense"), None)
    lines = (
        [] if dense is None else [f"Accuracy of the published dense network, rebuilt: {float(dense['test']):.4f}.", ""]
    )  # type: ignore[arg-type]
    lines += [
        "Pixel accuracy on the 50 test images (published in brackets; without fine-tuning nothing is published):",
        "",
    ]
    lines += ["| kernels kept | " + " | ".join(f"{by} | {by}, no tuning" for by in METHODS) + " |"]
    lines += ["|---" * (1 + 2 * len(METHODS)) + "|"]
    for index, keep in enumerate(KEPT):
        cells = [_accuracy_cell_of_step(rows, by, tuned, index) for by in METHODS for tuned in (True, False)]
        lines.append(f"| {keep:.0%} | {' | '.join(cells)} |")
    return [*lines, "", *_step_table(rows), *_agreement_table(rows)]


def _step_table(rows: list[Row]) -> list[str]:
    """Return the lines of the table of LEAN's steps: accuracies, norms and chains."""
    lines = [
        "LEAN step by step. The last three columns describe the choice from the authors' network of the step before:",
        "",
    ]
    lines += [
        "| LEAN, kernels asked for | kept | accuracy | published | norms below 1 | chains | kernels by norm alone |"
    ]
    lines += ["|---" * 7 + "|"]
    for step, published in enumerate(PUBLISHED_LEAN, 1):
        here: Row = {"kernels": "", "test": ""}
        for row in rows:
            if row["by"] == "lean" and row.get("step") == step and (row.get("tuned") is True or "jaccard" in row):
                here |= row
        accuracy = f"{here['test']:.4f}" if here["test"] != "" else "-"
        below = f"{here['below 1']:.0%}" if "below 1" in here else "-"
        lines.append(
            f"| {TARGET ** (step / STEPS):.1%} | {here['kernels'] or '-'} | {accuracy} | {published:.4f} | {below} | "
            f"{here.get('chains', '-')} | {here.get('filled', '-')} |"
        )
    return [*lines, ""]


def _accuracy_cell_of_step(rows: list[Row], by: str, tuned: bool, index: int) -> str:
    measured = [
        row for row in rows if row["by"] == by and row.get("step") == SHOWN[index] and row.get("tuned") is tuned
    ]
    value = f"{float(measured[0]['test']):.3f}" if measured else "-"  # type: ignore[arg-type]
    return f"{value} ({PUBLISHED[by][index]})" if tuned else value


def _agreement_table(rows: list[Row]) -> list[str]:
    compared = [row for row in rows if "jaccard" in row]
    if not compared:
        return []
    lines = ["Masks chosen from each published network for the next step, against the published ones (Jaccard):", ""]
    lines += ["| | identical steps | lowest | mean |", "|---|---|---|---|"]
    for by in METHODS:
        values = [float(row["jaccard"]) for row in compared if row["by"] == by]  # type: ignore[arg-type]
        if values:
            same = sum(value == 1 for value in values)
            lines.append(f"| {by} | {same} of {len(values)} | {min(values):.3f} | {np.mean(values):.4f} |")
    return lines
