"""Frames: pandas tables of labels. Rows go by their position, whatever their index is."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nbfinetune.arguments import as_list
from nbfinetune.data.sources.tables import LabelTable
from nbfinetune.rendering.names import shown

if TYPE_CHECKING:
    from pandas import DataFrame


def is_frame(value: object) -> bool:
    """Whether this is a pandas DataFrame; pandas is not imported for the question."""
    return all(hasattr(value, name) for name in ("iloc", "columns", "dtypes"))


@dataclass(frozen=True)
class FrameTable(LabelTable):
    """The rows of a DataFrame."""

    frame: "DataFrame" = field(repr=False)

    def column(self, column: int | str) -> list:
        """The values of a column, by position."""
        return as_list(self.frame.iloc[:, self.place(column)], f"{self.name}[{column!r}]")

    def row(self, i: int) -> str:
        """What to type to see row i."""
        return f"{self.name}.iloc[{i}]"

    def check_header(self, heading: object, is_picture: bool) -> None:
        """See `LabelTable`."""
        if is_picture:
            raise ValueError(
                f"{self.name} has the picture {shown(heading)} as a heading, and so has lost it as "
                "a row; read the file with pandas.read_csv(..., header=None)"
            )

    def hint(self, column: object) -> str:
        """See `LabelTable`."""
        if column is not None and column in list(self.frame.index.names):
            return f"; {column!r} is its index: give {self.name}.reset_index()"
        return ""


def frame_table(df: object) -> FrameTable:
    """A DataFrame as a table.

    Raises
    ------
    ValueError
        For what is none, with what to type, and for one without rows.
    """
    if not is_frame(df):
        raise ValueError(f"df is a {type(df).__name__}, no pandas DataFrame; {_instead(df)}")
    table = FrameTable("df", df.columns.tolist(), df)
    if not len(df):
        raise ValueError(f"df has the columns {table.headings} and no rows; give some")
    return table


def _instead(df: object) -> str:
    home = type(df).__module__.partition(".")[0]
    if home == "datasets":
        return "use ImageDataLoaders.from_datasets"
    if hasattr(df, "to_pandas"):  # of Polars, PyArrow and others
        return "give df.to_pandas()"
    if hasattr(df, "to_frame"):  # a Series
        return "give a DataFrame with columns of files and labels"
    if isinstance(df, (dict, list, tuple)):
        return "pandas.DataFrame(df) makes one, or use ImageDataLoaders.from_lists"
    return "give from_df(df, path); of a file, from_csv(path, csv_fname)"
