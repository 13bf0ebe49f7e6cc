"""Corrections: what is wrong with labels, as marks on files and as a CSV file that loaders read.

Picture files are never moved, renamed or deleted.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from weakref import WeakMethod, WeakSet

from nbfinetune.arguments import as_path
from nbfinetune.data.arguments import say
from nbfinetune.rendering.names import first_few, shortened, shown
from nbfinetune.rendering.numbers import counted
from nbfinetune.rendering.tables import Table
from nbfinetune.runtime.interrupts import interrupts_held
from nbfinetune.runtime.own_files import locked, write_whole

ACTIONS = ("relabel", "remove", "fine")
CORRECTIONS = "corrections.csv"
_COLUMNS = ["file", "action", "label", "was"]
_ANY_NAME = "surrogateescape"  # as Python reads file names that are not UTF-8
_FORMULA = re.compile("'*[=+@\t\r\n-]")  # what spreadsheets run (OWASP), and what is written for it
_NO_MARK = "no picture is marked; mark some in the image panel of %confusion_matrix"
_ESCAPED = re.compile("'+[=+@\t\r\n-]")
_AROUND = 20  # characters before one that cannot be written


@dataclass(frozen=True)
class Mark:
    """What is to become of one file.

    Parameters
    ----------
    action : "relabel", "remove" or "fine" (looked at, nothing wrong)
    label : the class it belongs to, for "relabel"
    was : the class it had
    """

    action: str
    label: str
    was: str

    def __str__(self) -> str:
        return f"relabel as {self.label}" if self.action == "relabel" else self.action


_LIVING: "WeakSet[Corrections]" = WeakSet()


def all_marks() -> list[list[str]]:
    """File, action, label and former class of all marks that are not written yet."""
    marks = [mark for living in _LIVING for mark in living.marks.items()]
    return [[str(file), m.action, m.label, m.was] for file, m in marks]


def put_marks(marks: Sequence[Sequence[str]]) -> None:
    """Have marks of another process, beside those that there are; a file's own one stays."""
    made = {Path(file): Mark(*texts) for file, *texts in marks}
    for living in _LIVING:
        if set(made) - set(living.marks):
            living._changed(made | living.marks, f"{counted(len(made), 'mark')} of before are back")


class Corrections:
    """Marks that are not written yet, in the order they were made.

    Attributes
    ----------
    marks : file -> its newest mark
    said : what was done last, and how many are marked since
    """

    def __init__(self) -> None:
        self.marks: dict[Path, Mark] = {}
        self.said = ""
        self._before: list[dict[Path, Mark]] = []
        self._applied: list[tuple[Path, bytes | None, bytes, dict[Path, Mark]]] = []
        self._watching: list[WeakMethod] = []
        _LIVING.add(self)

    def watch(self, method: Callable[[], None]) -> None:
        """Call a method whenever the marks have changed; its object is not kept alive."""
        self._watching.append(WeakMethod(method))

    def _changed(self, marks: dict[Path, Mark], what: str) -> str:
        self.marks = marks
        left = f"{len(marks):,} marked; %clean lists them" if marks else "no picture is marked now"
        self.said = f"{what} ({left})"
        self._watching = [method for method in self._watching if method() is not None]
        for method in self._watching:
            method()()
        return self.said

    def mark(self, file: Path, action: str, was: str, label: str = "") -> None:
        """Mark a file; see `mark_all`."""
        self.mark_all({file: was}, action, label)

    def mark_all(self, files: Mapping[Path, str], action: str, label: str = "") -> None:
        """Mark some files alike; `undo_mark` takes all of these marks back.

        Parameters
        ----------
        files : file -> the class it has
        action : "relabel", "remove" or "fine"
        label : the class they belong to, for "relabel"

        Raises
        ------
        ValueError
            For an unknown action, or a relabelling without a label.
        """
        if action not in ACTIONS:
            raise ValueError(f"action is {shown(action)}; it is one of {', '.join(ACTIONS)}")
        if (action == "relabel") != bool(label):
            raise ValueError(
                f"{action} with the label {shown(label)}; relabel needs one, the others none"
            )
        self._before.append(self.marks)
        new = {file.absolute(): Mark(action, label, was) for file, was in files.items()}
        others = {name: mark for name, mark in self.marks.items() if name not in new}
        self._changed(others | new, f"{_named(new)}: {Mark(action, label, '')}")

    def undo_mark(self) -> str:
        """Take back the last mark. Says which.

        Raises
        ------
        ValueError
            If there is none since the last `apply`.
        """
        if not self._before:
            raise ValueError("there is no mark to undo")
        undone, before = self.marks, self._before.pop()
        files = [f for f in undone if undone[f] is not before.get(f)]
        return self._changed(before, f"mark taken back: {_named(files)}")

    def undo(self) -> str:
        """Take back the last mark; without one, the last `apply`. Says what was done.

        Raises
        ------
        ValueError
            If there is nothing to undo, or the written file was changed since.
        OSError
            If the file cannot be written.
        """
        if self._before:
            return self.undo_mark()
        if not self._applied:
            raise ValueError("there is nothing to undo")
        file, before, after, marks = self._applied[-1]
        if not file.exists():  # before the lock: its folder may be gone too
            raise ValueError(f"{shortened(file)} is not there any more; nothing is undone")
        with locked(file), interrupts_held():
            if _content(file) != after:
                raise ValueError(
                    f"{shortened(file)} was changed since it was written; it is left as it is"
                )
            if before is None:
                file.resolve().unlink()  # not a link to it
            else:
                write_whole(file, before)
            self._applied.pop()
            again = "it is a mark again" if len(marks) == 1 else "they are marks again"
            taken = f"{counted(len(marks), 'correction')} taken out of {file.name}"
            return self._changed(marks | self.marks, f"{taken}; {again}")

    def apply(self, file: str | PathLike = CORRECTIONS) -> Path:
        """Write the marks to a CSV file, after those it has; a file marked twice has its newest.

        Several notebooks may write to one file: each waits for the others. The marks are dropped
        when what was written reads as they are.

        Raises
        ------
        ValueError
            If there are no marks, the file is there and holds something else, or they cannot be
            written as text.
        OSError
            If the file cannot be written; the marks stay.
        """
        path = as_path(file, "corrections")
        if not self.marks:
            raise ValueError(_NO_MARK)
        with locked(path), interrupts_held():
            before = _content(path)
            everything = {} if before is None else read_corrections(path)
            for name, mark in self.marks.items():
                everything.pop(name, None)
                everything[name] = mark
            after = _as_csv(everything, path.parent)
            if _parsed(after, path) != everything:
                raise ValueError(
                    f"{shortened(path)} is not written: names in it would be read as others"
                )
            write_whole(path, after)
            if _content(path) != after:
                raise OSError(f"{shortened(path)} does not hold what was written; try again")
            self._applied.append((path, before, after, self.marks))
            self._before = []
            self._changed({}, f"{counted(len(self.marks), 'correction')} written to {path.name}")
        return path

    def table(self) -> Table:
        """The marks that are not written yet."""
        rows = [(f.name, m.was, str(m), str(f.parent)) for f, m in self.marks.items()]
        title = f"{counted(len(rows), 'picture')} {'is' if len(rows) == 1 else 'are'} marked"
        return Table(title if rows else _NO_MARK, ("file", "label", "mark", "folder"), rows)


def _named(files: Collection[Path]) -> str:
    """The name of a file alone, else how many they are."""
    return next(iter(files)).name if len(files) == 1 else counted(len(files), "picture")


def _as_csv(marks: dict[Path, Mark], folder: Path) -> bytes:
    """Files in the folder are written relative to it: it may be moved with them.

    A text that a spreadsheet would run as a formula has an apostrophe before it, which spreadsheets
    take for "this is text" and `read_corrections` takes off. A mark at the start of the file tells
    Excel that names beyond ASCII are UTF-8.

    Raises
    ------
    ValueError
        If a text has no bytes: a lone half of a surrogate pair.
    """
    out = io.StringIO(newline="")
    plain = csv.writer(out, lineterminator="\n")
    quoted = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(_COLUMNS)
    for file, mark in marks.items():
        inside = file.is_relative_to(folder)
        name = file.relative_to(folder).as_posix() if inside else str(file)
        row = [name, mark.action, mark.label, mark.was]
        writer = quoted if "\r" in "".join(row) else plain  # csv does not quote "\r" by itself
        writer.writerow([f"'{text}" if _FORMULA.match(text) else text for text in row])
    text = out.getvalue()
    try:
        content = text.encode(errors=_ANY_NAME)
    except UnicodeEncodeError as error:
        around = text[max(error.start - _AROUND, 0) : error.end]
        raise ValueError(f"{shown(around)} cannot be written as UTF-8; rename it") from None
    return content if text.isascii() else codecs.BOM_UTF8 + content


def _content(path: Path) -> bytes | None:
    """The bytes of a file, None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{shortened(path)} is no file of corrections: {reason}") from None


def read_corrections(file: str | PathLike) -> dict[Path, Mark]:
    """The corrections in a CSV file that `Corrections.apply` wrote, by absolute file.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is not there, or not such a file.
    """
    path = as_path(file, "corrections")
    content = _content(path)
    if content is None:
        raise FileNotFoundError(f"{shortened(path)} is not there; give corrections a file")
    return _parsed(content, path)


def _parsed(content: bytes, path: Path) -> dict[Path, Mark]:
    text = content.decode("utf-8-sig", errors=_ANY_NAME)
    try:
        header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    except csv.Error as error:
        raise ValueError(f"{shortened(path)} is no file of corrections: {error}") from None
    if header != _COLUMNS:
        raise ValueError(
            f"{shortened(path)} is no file of corrections: its columns are not {_COLUMNS}"
        )
    marks = {}
    for i, row in enumerate(rows, 2):
        texts = [text[1:] if _ESCAPED.match(text) else text for text in row]
        if (
            len(row) != len(_COLUMNS)
            or row[1] not in ACTIONS
            or (row[1] == "relabel") != bool(row[2])
        ):
            raise ValueError(f"{shortened(path)}: line {i} is not a correction: {shown(row)}")
        marks[path.parent / texts[0]] = Mark(*texts[1:])
    return marks


def correct(
    files: Sequence[Path], labels: Sequence[str], marks: dict[Path, Mark], notes: list[str]
) -> tuple[list[int], list[str]]:
    """The files that stay, by number, and the labels of all.

    Corrections whose files are not among them are warned of and noted.
    """
    there = set(files)
    if missing := [file.name for file in marks if file not in there]:
        one = len(missing) == 1
        of = "is of a file that is" if one else "are of files that are"
        found = f"{counted(len(missing), 'correction')} {of} not among the pictures"
        say(notes, f"{found}: {first_few(missing)}")
    of = [marks.get(file, Mark("fine", "", "")) for file in files]
    kept = [i for i, mark in enumerate(of) if mark.action != "remove"]
    return kept, [mark.label or labels[i] for i, mark in enumerate(of)]
