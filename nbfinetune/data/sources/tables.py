"""Tables: rows that name a picture and its label, by the same rules wherever they come from."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import NoReturn

from nbfinetune.arguments import is_missing, plain
from nbfinetune.data.arguments import as_marks, check_no_url
from nbfinetune.images.files import image_suffixes, locate
from nbfinetune.rendering.names import first_few, shortened, shown

# Of a column that DataFrame.to_csv() writes, read_csv reads again, and reset_index() makes.
_INDEX_HEADINGS = ("", "Unnamed: 0", "index", "level_0")


@dataclass(frozen=True)
class LabelTable:
    """Columns of values below headings; `CsvTable` and `FrameTable` are such tables.

    Parameters
    ----------
    name : what it is called in messages
    header : the headings
    """

    name: str
    header: list

    def place(self, column: int | str) -> int:
        """The number of a column that is named by number or heading.

        Raises
        ------
        ValueError
            If there is none, or if it can be two.
        """
        column = plain(column)
        number = isinstance(column, int) and not isinstance(column, bool)
        n = self.header.count(column)
        if number and n and (n > 1 or self.header.index(column) != column):
            raise ValueError(
                f"{self.name} has the column {column} at place {self.header.index(column)}: "
                "either may be meant; give the columns names"
            )
        if n > 1:
            raise ValueError(
                f"{self.name} has {n} columns {column!r}; give the number of one, such as "
                f"{self.header.index(column)}"
            )
        if number and 0 <= column < len(self.header):
            return column
        if number or isinstance(column, bool) or not n:
            self._refuse(column)
        return self.header.index(column)

    def _refuse(self, column: object) -> NoReturn:
        raise ValueError(
            f"{self.name} has no column {shortened(repr(column))}; it has {self.headings}"
            f"{self.hint(column)}"
        )

    def hint(self, column: object) -> str:
        """What to type where there is no such column, if that is known."""
        return ""

    @property
    def headings(self) -> str:
        """The headings, for messages."""
        return f"[{first_few([repr(name) for name in self.header])}]"

    def column(self, column: int | str) -> list:
        """The values of a column, as Python's own."""
        raise NotImplementedError

    def row(self, i: int) -> str:
        """Where row i is, for messages."""
        raise NotImplementedError

    def check_header(self, heading: object, is_picture: bool) -> None:
        """Refuse a table whose headings are a row: `heading` is that of the files."""
        raise NotImplementedError


def table_items(
    table: LabelTable, columns: Sequence[int | str], folder: Path, suff: str
) -> tuple[list[Path], list, dict[str, list[bool]]]:
    """The files in `folder` that a table names, their labels, and `is_valid` if it has it.

    A file that is not there but in the working folder is that one, as in `from_lists`.

    Parameters
    ----------
    columns : of the file, of the label, and of what is held out if it has one

    Raises
    ------
    ValueError
        Naming the rows without file or label, or without a word for held out or trained on; for a
        table without headings, whose first picture would be left out.
    """
    names, labels, *marks = map(table.column, columns)
    heading = table.header[table.place(columns[0])]
    suffix = "" if suff else os.path.splitext(str(heading))[1].lower()
    there = isinstance(heading, str) and os.path.isfile(folder / f"{heading}{suff}")
    table.check_header(heading, suffix in image_suffixes() or there)
    for what, column in (("file", names), ("label", labels)):
        if empty := [table.row(i) for i, value in enumerate(column) if is_missing(value)]:
            raise ValueError(
                f"{table.name}: {len(empty)} of {len(names)} rows have no {what} "
                f"({first_few(empty)}); give them one or leave the rows out"
            )
    texts = [_as_name(table, i, name) for i, name in enumerate(names)]
    if heading in _INDEX_HEADINGS and not suff and all(map(str.isdecimal, texts)):
        raise ValueError(
            f"{table.name}: the column {heading!r} numbers the rows, as pandas writes an index; "
            f"the columns are {table.headings}: give those of file and label, such as fn_col=1, "
            "label_col=2"
        )
    for text in texts:
        check_no_url(text)
    files = [locate(folder, Path(f"{text}{suff}")) for text in texts]
    if not marks:
        return files, labels, {}
    title = table.header[table.place(columns[2])]
    # A gap is an empty text, whatever pandas has made of it.
    found = ["" if is_missing(mark) else mark for mark in marks[0]]

    def where(i: int) -> str:
        return f"{title} in {table.row(i)} of {table.name}"

    return files, labels, {"is_valid": as_marks(found, len(files), where)}


def _as_name(table: LabelTable, i: int, name: object) -> str:
    """The name of a file as text; a whole number is one too: an id, to which suff= is added."""
    if isinstance(name, float) and name.is_integer():  # of a column that had gaps
        name = int(name)
    if isinstance(name, Integral) and not isinstance(name, bool):
        return str(name)
    if isinstance(name, bytes):
        return os.fsdecode(name)
    if isinstance(name, (str, os.PathLike)):
        return os.fspath(name)
    raise ValueError(
        f"{table.name}: the file in {table.row(i)} is {shown(name)}; it must be the name of a file"
    )
