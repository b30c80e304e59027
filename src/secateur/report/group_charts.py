"""Charts of groups: bars of dense and kept units, one scale for each kind, and the scores of their units."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.importance.scores import GroupScores, Scores
from secateur.report.chart_scale import Scale

WIDTH, LEFT, TOP, BOTTOM = 272, 62, 8, 104
MOST_COLUMNS, FEWEST_COLUMNS, COLUMNS_OF_PAGE = 80, 24, 9000
MOST_CHARTS, UNFOLDED = 200, 24


@dataclass(frozen=True)
class GroupBar:
    """The bar of one group.

    Args:
        name: of the group.
        size: the number of its units in the dense network.
        kept: the number of its units in the pruned network.
        dense_width: the length of the bar, in percent of the scale.
        kept_width: the length of its filled part.
    """

    name: str
    size: int
    kept: int
    dense_width: float
    kept_width: float


@dataclass(frozen=True)
class KindBars:
    """The groups of one kind of units, on one scale.

    Args:
        kind: of the units; "units" where it is unknown.
        bars: of the groups.
        most: the number of units at the end of the scale.
    """

    kind: str
    bars: tuple[GroupBar, ...]
    most: int

    @property
    def noun(self) -> str:
        """The word for several units: the kind where it is a plural, such as "channels"."""
        return self.kind if self.kind.endswith("s") else "units"

    @property
    def size(self) -> int:
        """The number of units in the dense network."""
        return sum(bar.size for bar in self.bars)

    @property
    def kept(self) -> int:
        """The number of units in the pruned network."""
        return sum(bar.kept for bar in self.bars)


def bars_by_kind(groups: Mapping[str, tuple[int, int]], kinds: Mapping[str, str]) -> list[KindBars]:
    """Return the bars of groups, for each kind of units by itself.

    Args:
        groups: the numbers of units before and after, by group.
        kinds: the kinds of the groups' units; others are "units".
    """
    by_kind: dict[str, dict[str, tuple[int, int]]] = {}
    for name, counts in groups.items():
        by_kind.setdefault(kinds.get(name, "units"), {})[name] = counts
    return [KindBars(kind, *_bars(members)) for kind, members in by_kind.items()]


def _bars(groups: Mapping[str, tuple[int, int]]) -> tuple[tuple[GroupBar, ...], int]:
    largest_size = max(size for size, _ in groups.values())
    bars = tuple(
        GroupBar(name, size, kept, round(100 * size / largest_size, 2), round(100 * kept / largest_size, 2))
        for name, (size, kept) in groups.items()
    )
    return bars, largest_size


@dataclass(frozen=True)
class ScoreChart:
    """The scores of one group's units as columns: removed units first, then kept ones, each in ascending order.

    Args:
        name: of the group.
        size: the number of its units.
        kept: the number of units that were kept.
        removed_path: the outline of the columns of removed units.
        kept_path: the outline of the columns of kept units.
        error_path: a line of one standard error up and down for each column; empty without errors.
        boundary: the position between removed and kept units.
        zero: the position of the score 0.
        lowest: the number at the lower end of the scale.
        highest: the number at its upper end.
        units_per_column: the number of units whose mean is a column.
    """

    name: str
    size: int
    kept: int
    removed_path: str
    kept_path: str
    error_path: str
    boundary: float
    zero: float
    lowest: str
    highest: str
    units_per_column: int
    width: int = WIDTH
    start: int = LEFT
    top: int = TOP
    bottom: int = BOTTOM


def score_charts(scores: Scores, groups: Mapping[str, tuple[int, int]], kept: Mapping[str, Tensor]) -> list[ScoreChart]:
    """Return a chart for each of the first groups that have finite scores.

    Args:
        scores: the scores.
        groups: the numbers of units before and after, by group.
        kept: the indices of kept units; for other groups those with the highest scores.
    """
    scored_names = [name for name, (size, _) in groups.items() if name in scores and _is_drawable(scores[name], size)]
    columns = max(FEWEST_COLUMNS, min(MOST_COLUMNS, COLUMNS_OF_PAGE // max(len(scored_names), 1)))
    return [
        _score_chart(name, scores[name], *groups[name], kept.get(name), columns) for name in scored_names[:MOST_CHARTS]
    ]


def _is_drawable(scores: GroupScores, size: int) -> bool:
    return 0 < size == len(scores.values) and bool(scores.values.isfinite().all())


def _score_chart(
    name: str, scores: GroupScores, size: int, kept_count: int, kept: Tensor | None, columns: int
) -> ScoreChart:
    values, errors = scores.values.double().cpu(), scores.errors.double().cpu().nan_to_num(0.0, 0.0, 0.0)
    order = torch.argsort(values, stable=True)
    is_kept = torch.zeros(size, dtype=torch.bool)
    is_kept[order[size - kept_count :] if kept is None else kept.cpu()] = True
    per_column = -(-size // columns)
    removed_scores, remaining_scores = (
        _column_means(values[units], errors[units], per_column)
        for units in (order[~is_kept[order]], order[is_kept[order]])
    )
    low, high = _value_range([*removed_scores, *remaining_scores])
    scale = Scale(low, high if high > low else low + 1, BOTTOM, TOP)
    width = (WIDTH - LEFT) / (len(removed_scores) + len(remaining_scores))
    return ScoreChart(
        name=name,
        size=size,
        kept=kept_count,
        removed_path=_columns_path(removed_scores, scale, LEFT, width),
        kept_path=_columns_path(remaining_scores, scale, LEFT + width * len(removed_scores), width),
        error_path=_errors_path([*removed_scores, *remaining_scores], scale, width) if bool(errors.any()) else "",
        boundary=round(LEFT + width * len(removed_scores), 1),
        zero=scale.position(0.0),
        lowest=f"{low:.2g}",
        highest=f"{high:.2g}",
        units_per_column=per_column,
    )


def _value_range(columns: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the lowest and the highest of values with their errors and 0."""
    ends = [value + sign * error for value, error in columns for sign in (-1, 1)]
    return min(0.0, *ends), max(0.0, *ends)


def _column_means(values: Tensor, errors: Tensor, per_column: int) -> list[tuple[float, float]]:
    """Return the mean score and the mean standard error of the units of each column."""
    pairs = zip(values.split(per_column), errors.split(per_column), strict=True)
    return [(float(value.mean()), float(error.mean())) for value, error in pairs] if len(values) else []


def _columns_path(columns: list[tuple[float, float]], scale: Scale, start: float, width: float) -> str:
    """Return the outline of adjacent columns from the position of zero."""
    if not columns:
        return ""
    tops = "".join(
        f"V{scale.position(value):g}H{start + width * (at + 1):.4g}" for at, (value, _) in enumerate(columns)
    )
    zero = scale.position(0.0)
    return f"M{start:.4g} {zero:g}{tops}V{zero:g}z"


def _errors_path(columns: list[tuple[float, float]], scale: Scale, width: float) -> str:
    return "".join(
        f"M{LEFT + width * (at + 0.5):.4g} {scale.position(value - error):g}V{scale.position(value + error):g}"
        for at, (value, error) in enumerate(columns)
    )
