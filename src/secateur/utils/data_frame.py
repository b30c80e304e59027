"""Tables as pandas data frames; pandas is imported on use."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from secateur.errors import OptionError

if TYPE_CHECKING:
    from pandas import DataFrame


def data_frame(columns: Mapping[str, Sequence[Any]]) -> "DataFrame":
    """Return a data frame of columns of one length.

    Raises:
        OptionError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ImportError as failure:
        raise OptionError(
            "to_frame() needs pandas, which is not installed: pip install pandas, or use to_dict()"
        ) from failure
    return DataFrame(columns)


def data_frame_of_rows(rows: Sequence[Mapping[str, Any]]) -> "DataFrame":
    """Return a data frame of rows; a row without a value for a column has None there.

    Args:
        rows: the values by column.

    Raises:
        OptionError: pandas is not installed.
    """
    columns = dict.fromkeys(name for row in rows for name in row)
    return data_frame({name: [row.get(name) for row in rows] for name in columns})
