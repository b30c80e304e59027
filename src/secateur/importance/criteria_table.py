"""The criteria as a mapping by name and as a table."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from secateur.options import check_name
from secateur.options.call_checks import checked_calls
from secateur.utils.data_frame import data_frame
from secateur.utils.html_table import html_table
from secateur.utils.text_table import align_columns

if TYPE_CHECKING:
    from pandas import DataFrame

    from secateur.importance.registry import RegisteredCriterion

LABELS: Mapping[str, str] = {"nothing": "not read", "loss": "if given", "gradients": "if given", "unknown": "unknown"}
"""Whether a criterion reads labels; without labels, losses are the divergence from the dense network's output."""


@checked_calls
class Criteria(Mapping[str, "RegisteredCriterion"]):
    """The registered criteria by name, and a table of them: what each costs and needs, its source and its options."""

    def __init__(self, criteria: Mapping[str, "RegisteredCriterion"]) -> None:
        self._criteria = dict(sorted(criteria.items()))

    def __getitem__(self, name: str) -> "RegisteredCriterion":
        check_name(name, self._criteria, "no criterion is named")
        return self._criteria[name]

    def __contains__(self, name: object) -> bool:
        return name in self._criteria

    def __iter__(self) -> Iterator[str]:
        return iter(self._criteria)

    def __len__(self) -> int:
        return len(self._criteria)

    def to_dict(self) -> list[dict[str, str]]:
        """Return a row for each criterion: its name, cost, labels, gradients, source and options."""
        return [
            {
                "criterion": name,
                "passes over the data": entry.facts.passes,
                "labels": LABELS[entry.uses],
                "gradients": entry.gradients,
                "source": entry.facts.source,
                "options": entry.configuration,
            }
            for name, entry in self._criteria.items()
        ]

    def to_frame(self) -> "DataFrame":
        """Return the table as a pandas data frame.

        Raises:
            OptionError: pandas is not installed.
        """
        rows = self.to_dict()
        return data_frame({column: [row[column] for row in rows] for column in rows[0]})

    def _rows(self) -> list[list[str]]:
        rows = self.to_dict()
        return [list(rows[0]), *([*row.values()] for row in rows)]

    def __str__(self) -> str:
        return "\n".join(align_columns(self._rows(), frozenset(range(6))))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table("criteria", self._rows())
