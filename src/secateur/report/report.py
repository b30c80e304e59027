"""The report of a pruned network, with its text, JSON and HTML forms."""

from dataclasses import dataclass

from secateur.files.records import encoded
from secateur.importance.scores import Scores
from secateur.report.figures import Figures
from secateur.report.report_page import report_page
from secateur.report.schema import saved_form
from secateur.report.text import report_text


@dataclass(frozen=True, eq=False, kw_only=True)
class Report(Figures):
    """The figures of a pruned network and the scores behind them.

    Args:
        scores: the scores of the units; None for methods that do not score units.
    """

    scores: Scores | None = None

    def __str__(self) -> str:
        return report_text(self)

    def to_json(self) -> str:
        """Return the report as JSON."""
        return encoded(saved_form(self)).decode()

    def to_html(self) -> str:
        """Return the report as one self-contained HTML page with plots."""
        return report_page(self, self.scores)
