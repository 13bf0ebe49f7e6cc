"""Labels: of picture files by their folder, by their name, or from a CSV file."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from nbfinetune.data.datasets import first_few


def folder_labels(files: Sequence[Path], root: Path) -> list[str]:
    """The folder just below `root` that each file is in."""
    parts = [f.relative_to(root).parts for f in files]
    if loose := [part[0] for part in parts if len(part) == 1]:
        raise ValueError(
            f"{len(loose)} pictures lie in {root} itself, outside any class folder "
            f"({first_few(loose)}); put them into one, or use from_name_re or from_csv"
        )
    return [part[0] for part in parts]


def name_labels(files: Sequence[Path], pat: str) -> list[str]:
    """The first group of a regular expression in the name of each file."""
    found = [re.search(pat, f.name) for f in files]
    if missing := [f.name for f, match in zip(files, found, strict=True) if not match]:
        raise ValueError(f"pattern {pat!r} is not found in {first_few(missing)}")
    if re.compile(pat).groups < 1:
        raise ValueError(f"pattern {pat!r} has no group; put the label into (...)")
    return [match[1] for match in found]


def csv_columns(file: Path, columns: Sequence[int | str], delimiter: str) -> list[list[str]]:
    """These columns, by number or heading, of a CSV file with a header line."""
    with open(file, newline="", encoding="utf-8-sig") as lines:
        header, *rows = [row for row in csv.reader(lines, delimiter=delimiter) if row] or [[]]
    place = {name: i for i, name in enumerate(header)} | {i: i for i in range(len(header))}
    if unknown := [col for col in columns if col not in place]:
        raise ValueError(f"{file.name} has no column {unknown[0]!r}; it has {header}")
    if short := [i for i, row in enumerate(rows, 2) if len(row) != len(header)]:
        raise ValueError(f"{file.name}: row {short[0]} has not {len(header)} columns")
    return [[row[place[col]] for row in rows] for col in columns]
