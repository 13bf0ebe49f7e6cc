"""Frames: columns of values as a pandas DataFrame, for those who have pandas."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


def data_frame(columns: Mapping[str, Sequence], index: Sequence | None = None) -> "DataFrame":
    """A DataFrame of these columns.

    Raises
    ------
    ImportError
        Without pandas, with what to type.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError(
            "a DataFrame needs pandas, which is not installed: pip install pandas"
        ) from None
    return pandas.DataFrame(dict(columns), index=index)
