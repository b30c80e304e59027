"""The losses of rankings after the same repair, as tables with intervals."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

BASELINE = "obs"
Row = Mapping[str, Any]


def refit_tables(rows: Sequence[Row]) -> str:
    """Return the points of accuracy lost, and the difference from `obs`, at each budget: a table for each repair."""
    repairs = list(dict.fromkeys(row["repair"] for row in rows))
    return "\n\n".join(_refit_table([row for row in rows if row["repair"] == repair]) for repair in repairs)


def _refit_table(rows: Sequence[Row]) -> str:
    budgets = sorted({row["keep"] for row in rows}, reverse=True)
    rankings = list(dict.fromkeys(row["by"] for row in rows))
    columns = (f"{keep:.0%}: points lost | against `{BASELINE}`" for keep in budgets)
    header = ["network", "ranking", "draws", *columns, "passes"]
    lines = [f"| {' | '.join(header)} |", "|---|---|--:|" + "--:|--:|" * len(budgets) + "--:|"]
    for network in [*dict.fromkeys(row["network"] for row in rows), None]:
        for ranking in rankings:
            chosen = [row for row in rows if row["by"] == ranking and network in (None, row["network"])]
            if not chosen or (network is None and ranking == BASELINE):
                continue
            draws = {(row["network"], row["draw"]) for row in chosen}
            cells = [network or "all", ranking, str(len(draws))]
            for keep in budgets:
                cells += _loss_cells([row for row in rows if row["keep"] == keep], network, ranking)
            passes = mean(row["passes"] for row in chosen)
            lines.append(f"| {' | '.join([*cells, f'{passes:.1f}'])} |")
    return "\n".join(lines)


def _loss_cells(rows: Sequence[Row], network: str | None, ranking: str) -> list[str]:
    """Return the points lost by a ranking, and their difference from the baseline's with a 95 % interval."""
    chosen = [row for row in rows if network in (None, row["network"])]
    losses = {
        (row["network"], row["draw"], row["by"]): 100 * (row["dense accuracy"] - row["accuracy"]) for row in chosen
    }
    pairs = [key[:2] for key in losses if key[2] == ranking and (*key[:2], BASELINE) in losses]
    differences = [losses[*pair, ranking] - losses[*pair, BASELINE] for pair in pairs]
    if network is None:  # networks, not draws, are what an interval over all is about
        names = dict.fromkeys(pair[0] for pair in pairs)
        differences = [mean(d for d, pair in zip(differences, pairs, strict=True) if pair[0] == name) for name in names]
    if not pairs:
        return ["", ""]
    loss = f"{mean(losses[*pair, ranking] for pair in pairs):.2f}" if network else ""  # networks differ in their draws
    return [loss, "" if ranking == BASELINE else interval(differences)]


def interval(differences: Sequence[float]) -> str:
    """Return a mean with its 95 % interval by Student's t."""
    count = len(differences)
    if count < 2:
        return f"{mean(differences):+.2f}"
    width = float(student.ppf(0.975, count - 1)) * stdev(differences) / math.sqrt(count)
    return f"{mean(differences):+.2f} ± {width:.2f}"
