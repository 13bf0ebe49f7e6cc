"""CSV files: columns of tables of labels, whatever wrote them, or what is wrong with them.

A file that can be read in two ways is refused; what is found out (the character between columns)
is said.
"""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbfinetune.data.arguments import say
from nbfinetune.data.sources.tables import LabelTable
from nbfinetune.images.files import other_content
from nbfinetune.rendering.names import first_few, printable, shortened, shown

_DELIMITERS = (",", ";", "\t", "|")
# The longer first: UTF-32 begins as UTF-16 does.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_EXCEL = re.compile(r"sep=([,;|\t])(?=\r?\n)")  # what Excel takes for the character between columns
_GUESS = "cp1252"  # of western Windows; it is only proposed
_AROUND = 20  # bytes shown on both sides of the one that cannot be decoded


@dataclass(frozen=True)
class CsvTable(LabelTable):
    """Rows of texts below headings; its name is that of the file.

    Parameters
    ----------
    rows : the cells of each row
    lines : the line in the file at which each row begins
    delimiter : the character between columns
    """

    rows: list[list[str]]
    lines: list[int]
    delimiter: str

    def column(self, column: int | str) -> list[str]:
        """The texts of a column."""
        place = self.place(column)
        return [row[place] for row in self.rows]

    def row(self, i: int) -> str:
        """The line that row i begins in."""
        return f"line {self.lines[i]}"

    def check_header(self, heading: str, is_picture: bool) -> None:
        """See `LabelTable`."""
        if is_picture:
            raise ValueError(
                f"{self.name} has no header line: its first line names the picture {heading!r}; "
                "put a line of headings above it, such as file,label"
            )

    def check(self, columns: Sequence[int | str]) -> None:
        """Refuse a table without rows, without one of the columns, or with ragged rows."""
        for column in columns:
            self.place(column)
        if not self.rows:
            raise ValueError(f"{self.name} has a header line, {self.headings}, and no rows")
        wide = len(self.header)
        pairs = zip(self.lines, self.rows, strict=True)
        if ragged := [f"line {line} has {len(row)}" for line, row in pairs if len(row) != wide]:
            raise ValueError(
                f"{self.name}: {len(ragged)} rows have not {wide} columns as the header has "
                f"({first_few(ragged)}); put texts that hold {self.delimiter!r} into double quotes"
            )


def read_csv(
    file: Path,
    columns: Sequence[int | str],
    delimiter: str | None,
    encoding: str | None,
    notes: list[str],
) -> CsvTable:
    """The table in a CSV file with a header line.

    Parameters
    ----------
    file : the file
    columns : what is needed of it, by number or heading
    delimiter : between the columns; None = a comma, or what divides the header into these columns
        where a comma does not, with a note
    encoding : of the file; None = what its mark says, else UTF-8
    notes : what was found out is added

    Raises
    ------
    ValueError
        If it is no such table: empty, of another kind or encoding, with ragged rows or open quotes.
    FileNotFoundError
        If it is not there.
    """
    if delimiter is not None and (
        not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n'
    ):
        raise ValueError(
            f"delimiter is {shown(delimiter)}; it must be one character, such as ';' or '\\t'"
        )
    name = printable(file.name)
    text = _text(file, name, encoding)
    if said := _EXCEL.match(text):  # the line stays as an empty one: lines are counted
        text, delimiter = text[said.end() :], delimiter or said[1]
    if delimiter is not None:
        table = _parsed(name, text, delimiter)
        table.check(columns)
        return table
    problems = []
    for candidate in _DELIMITERS:
        try:
            table = _parsed(name, text, candidate)
            table.check(columns)
        except ValueError as error:
            # What is wrong is told of the first character that occurs in the header at all.
            problems.append((candidate not in text.lstrip().split("\n", 1)[0], error))
            continue
        if candidate != ",":
            say(
                notes,
                f"{name} is read with {candidate!r} between its columns; "
                f"pass delimiter={candidate!r} to say so",
            )
        return table
    raise min(problems, key=lambda problem: problem[0])[1] from None


def _parsed(name: str, text: str, delimiter: str) -> CsvTable:
    rows, lines, line = [], [], 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):  # spreadsheets end in rows of nothing
                rows.append(row)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{name}: the row that begins in line {line} cannot be read ({error}); a double quote "
            "at the beginning of a text needs one at its end, and two stand for one inside"
        ) from None
    if not rows:
        raise ValueError(f"{name} holds nothing; it needs a header line and a row for each picture")
    return CsvTable(name, rows[0], rows[1:], lines[1:], delimiter)


def _text(file: Path, name: str, encoding: str | None) -> str:
    if encoding is not None and not isinstance(encoding, str):
        raise ValueError(f"encoding is {shown(encoding)}; it must be a name, such as 'cp1252'")
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{shortened(file)} is not there; {_tables_beside(file)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{shortened(file)} cannot be read ({reason}); give a CSV file") from None
    if not content.strip():
        raise ValueError(f"{name} is empty ({len(content)} bytes)")
    if other := other_content(content[:512]):
        raise ValueError(f"{name} is {other}")
    marked = next((of for mark, of in _MARKS.items() if content.startswith(mark)), None)
    try:
        text = content.decode(marked or "utf-8" if encoding is None else encoding)
    except LookupError:
        raise ValueError(f"encoding is {shown(encoding)}, which Python does not know") from None
    except UnicodeDecodeError as error:
        raise ValueError(_undecodable(name, content, error)) from None
    except UnicodeError as error:  # UTF-16 without its mark
        raise ValueError(f"{name} is not {encoding}: {error}; pass another encoding=") from None
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        raise ValueError(
            f"{name} has NUL bytes; if it is UTF-16, pass encoding='utf-16-le' or 'utf-16-be'"
        )
    return text


def _undecodable(name: str, content: bytes, error: UnicodeDecodeError) -> str:
    line = content.count(b"\n", 0, error.start) + 1
    start = max(content.rfind(b"\n", 0, error.start) + 1, error.start - _AROUND)
    shown = content[start : error.end + _AROUND].split(b"\n")[0].decode(_GUESS, "replace").strip()
    return (
        f"{name} is not {error.encoding}: line {line} has the byte 0x{content[error.start]:02x}; "
        f"pass its encoding, such as encoding={_GUESS!r} if {shortened(shown)!r} is right there"
    )


def _tables_beside(file: Path) -> str:
    try:
        found = sorted(f.name for f in file.parent.iterdir() if f.suffix in (".csv", ".tsv"))
    except OSError:
        return f"nor is the folder {shortened(file.parent)}"
    return f"its folder has {first_few(found) or 'no CSV file'}; pass csv_fname=NAME"
