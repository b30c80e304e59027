"""The errors of estimators as parts of plain orders', as a table."""

from collections.abc import Mapping, Sequence
from math import exp, log
from statistics import mean
from typing import Any

PLAIN = "permutation"


def error_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the geometric means over the groups of each network, with the mean rank correlation in brackets."""
    by_key = {(row["network"], row["group"], row["budget"], row["estimator"]): row for row in rows}
    networks = list(dict.fromkeys(row["network"] for row in rows))
    budgets = sorted({row["budget"] for row in rows})
    columns = [(network, budget) for network in networks for budget in budgets]
    lines = [f"| estimator | {' | '.join(f'{network}, {budget}' for network, budget in columns)} |"]
    lines.append("|---|" + "--:|" * len(columns))
    for estimator in dict.fromkeys(row["estimator"] for row in rows):
        cells = [_error_cell(by_key, network, budget, estimator) for network, budget in columns]
        lines.append(f"| {estimator} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _error_cell(by_key: Mapping[Any, Mapping[str, Any]], network: str, budget: int, estimator: str) -> str:
    """Return the error as a part of plain orders' and the rank correlation; "" where none was measured."""
    measured = [row for key, row in by_key.items() if (key[0], key[2], key[3]) == (network, budget, estimator)]
    if not measured:
        return ""
    plain = [by_key[network, row["group"], budget, PLAIN] for row in measured]
    ratio = exp(mean(log(row["error"] / base["error"]) for row, base in zip(measured, plain, strict=True)))
    return f"{ratio:.2f} ({mean(row['correlation'] for row in measured):.2f})"
