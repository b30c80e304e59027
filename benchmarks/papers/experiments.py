"""The experiments of the papers by their names."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure

from papers import (
    circles,
    circles_published,
    circles_tables,
    finetuning,
    gates,
    layerwise,
    lowdata,
    maximum,
    taylor2019,
    untrained,
)
from papers.settings import Record, Row, Settings


@dataclass(frozen=True)
class PaperExperiment:
    """An experiment and its section of the page.

    Args:
        record: runs the experiment, and adds its rows to a record.
        tables: returns the lines of the tables of rows.
        text: the title of the section, and the text before its tables.
        figure: returns a plot of rows; None for no plot.
    """

    record: Callable[[Settings, Record], None]
    tables: Callable[[list[Row]], list[str]]
    text: str | None
    figure: Callable[[list[Row]], Figure] | None = None


def recorder(rows: Callable[[Settings], Iterable[Row]]) -> Callable[[Settings, Record], None]:
    """Return a function that adds the rows of an experiment to a record as they come."""

    def record_rows(settings: Settings, record: Record) -> None:
        for row in rows(settings):
            record.add(row)

    return record_rows


EXPERIMENTS = {
    "maximum": PaperExperiment(recorder(maximum.maximum_rows), maximum.maximum_tables, maximum.__doc__),
    "layerwise": PaperExperiment(
        recorder(layerwise.layerwise_rows), layerwise.layerwise_tables, layerwise.__doc__, layerwise.layerwise_figure
    ),
    "lowdata": PaperExperiment(
        recorder(lowdata.low_data_rows), lowdata.low_data_tables, lowdata.__doc__, lowdata.low_data_figure
    ),
    "untrained": PaperExperiment(recorder(untrained.untrained_rows), untrained.untrained_tables, untrained.__doc__),
    "finetuning": PaperExperiment(
        recorder(finetuning.finetuning_rows), finetuning.finetuning_tables, finetuning.__doc__
    ),
    "taylor2019": PaperExperiment(
        recorder(taylor2019.taylor_rows), taylor2019.taylor_tables, taylor2019.__doc__, taylor2019.taylor_figure
    ),
    "gates": PaperExperiment(recorder(gates.gate_rows), gates.gate_tables, gates.__doc__),
    "circles": PaperExperiment(
        recorder(circles.circle_rows), circles.circle_tables, circles.__doc__, circles.circle_figure
    ),
    "circles-published": PaperExperiment(
        circles_published.record_published_circles,
        circles_tables.published_circle_tables,
        circles_published.__doc__,
        circles_tables.published_circle_figure,
    ),
}
