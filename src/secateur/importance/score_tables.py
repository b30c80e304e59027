"""Tables of scores: by group, for people, and unit by unit, for further processing."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateur.importance.scores import GroupScores


def group_rows(groups: "Mapping[str, GroupScores]") -> list[list[str]]:
    """Return a row for each group with the spread of its scores, the header first."""
    rows = [["group", "units", "lowest", "median", "highest", "error"]]
    for name, scores in groups.items():
        spread = [scores.values.min(), scores.values.median(), scores.values.max(), scores.errors.mean()]
        rows.append([name, str(len(scores.values)), *(f"{float(value):.3g}" for value in spread)])
    return rows


def estimation_lines(groups: "Mapping[str, GroupScores]") -> list[str]:
    """Return the sampler of each sampling scheme's groups on one line, and the stopping rule on the next."""
    names_by_scheme: dict[tuple[str, str], list[str]] = {}
    for name, scores in groups.items():
        if scores.layout:
            names_by_scheme.setdefault((scores.layout, scores.stopped), []).append(name)
    lines = []
    for (layout, stop_reason), names in names_by_scheme.items():
        lines.append(f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: {layout}")
        lines += [f"  sampled until {stop_reason}"] if stop_reason else []
    return lines


def unit_columns(groups: "Mapping[str, GroupScores]") -> dict[str, list[Any]]:
    """Return the columns of a table with one row for each unit: its group, its index, its score and the error."""
    sizes = {name: len(scores.values) for name, scores in groups.items()}
    return {
        "group": [name for name, size in sizes.items() for _ in range(size)],
        "unit": [unit for size in sizes.values() for unit in range(size)],
        "score": [value for scores in groups.values() for value in scores.values.tolist()],
        "error": [error for scores in groups.values() for error in scores.errors.tolist()],
    }
