"""Labels: of picture files by their folder or by their name, and what is doubtful about names."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from nbfinetune.arguments import is_missing
from nbfinetune.data.arguments import say
from nbfinetune.data.splits import TEST_FOLDERS, WHOLE_NUMBER, split_folders
from nbfinetune.images.files import get_image_files, subfolders
from nbfinetune.rendering.names import first_few, printable, shortened, shown

_GAPS = re.compile(r"nan|none|null|na|n/a|<na>|nat|#n/a|#ref!|undefined|unknown|\?")


def folder_items(
    root: Path, train: str, valid: str, notes: list[str]
) -> tuple[list[Path], list[str], dict[str, list[bool]]]:
    """The files in class folders, their labels, and `is_valid` if that is given by folders."""
    folders = split_folders(root, train, valid, notes)
    if folders is None:
        files = without_test(get_image_files(root), root, notes)
        return files, folder_labels(files, root, notes), {}
    trained, held_out = map(get_image_files, folders)
    labels = [
        *folder_labels(trained, folders[0], notes),
        *folder_labels(held_out, folders[1], notes),
    ]
    is_valid = [False] * len(trained) + [True] * len(held_out)
    return [*trained, *held_out], labels, {"is_valid": is_valid}


def folder_labels(files: Sequence[Path], root: Path, notes: list[str]) -> list[str]:
    """The folder just below `root` that each file is in.

    Folders without pictures are no class, and noted; so are the same folders in all classes, which
    are perhaps the classes.

    Raises
    ------
    ValueError
        For pictures in `root` itself, and where `root` has one folder only, which has the folders
        of the classes.
    """
    parts = [f.relative_to(root).parts for f in files]
    if loose := [part[0] for part in parts if len(part) == 1]:
        raise ValueError(
            f"{len(loose)} pictures lie in {printable(root)} itself, outside any class folder "
            f"({first_few(loose)}); put them into one, use from_name_re or from_csv, "
            f"or, if {root.name!r} is a class, pass the folder above it, {str(root.parent)!r}"
        )
    inner: dict[str, set[str]] = defaultdict(set)
    for top, *deeper in parts:
        inner[top].add(deeper[0] if len(deeper) > 1 else "")
    top, below = next(iter(inner.items()))
    same = "" not in below and all(names == below for names in inner.values())
    if same and len(inner) == 1:
        raise ValueError(
            f"{printable(root)} has one folder, {top!r}, in which all pictures lie in the folders "
            f"{first_few(sorted(below))}; pass the folder that has these, {str(root / top)!r}"
        )
    if same and len(below) > 1:
        say(
            notes,
            f"the classes are {first_few(list(inner))}, and each has the folders "
            f"{first_few(sorted(below))}: if these are the classes, use from_lists with "
            "[file.parent.name for file in files]",
        )
    others = [name for name in subfolders(root) if name not in inner]
    if empty := [name for name in others if name.lower() not in TEST_FOLDERS]:
        say(notes, f"{len(empty)} folders have no pictures, and are no class: {first_few(empty)}")
    return [part[0] for part in parts]


def without_test(files: Sequence[Path], root: Path, notes: list[str]) -> list[Path]:
    """The files outside a folder `test` beside classes, of which a note is made."""
    tops = {f.relative_to(root).parts[0] for f in files if f.parent != root}
    left_out = [top for top in sorted(tops) if top.lower() in TEST_FOLDERS]
    if not left_out or len(tops) - len(left_out) < 2:
        return list(files)
    kept = [f for f in files if f.relative_to(root).parts[0] not in left_out]
    say(
        notes,
        f"{len(files) - len(kept)} pictures in {first_few(left_out)} are left out: a folder of "
        "this name is no class beside others; rename it if it is",
    )
    return kept


def name_labels(files: Sequence[Path], pat: str | re.Pattern) -> list[str]:
    """The first group of a regular expression in the name of each file."""
    try:
        pattern = re.compile(pat)
        found = [pattern.search(f.name) for f in files]
    except (re.error, TypeError) as error:
        raise ValueError(
            f"pat is {shortened(repr(pat))}, which is no regular expression of text: {error}"
        ) from None
    if missing := [f.name for f, match in zip(files, found, strict=True) if not match]:
        raise ValueError(f"pattern {shown(pat)} is not found in {first_few(missing)}")
    if pattern.groups < 1:
        raise ValueError(f"pattern {shown(pat)} has no group; put the label into (...)")
    pairs = list(zip(files, found, strict=True))
    if empty := [f.name for f, match in pairs if is_missing(match[1])]:
        raise ValueError(
            f"the group of pattern {shown(pat)} is empty, so there is no label, in "
            f"{first_few(empty)}; make it match there, or pass the other files as fnames"
        )
    return [match[1] for match in found]


def label_notes(vocab: Sequence[str]) -> list[str]:
    """What is doubtful about class names.

    One class alone, names that are another's in another spelling, that say that there is no label,
    or that hold line breaks, other control characters or blanks at their ends.
    """
    notes = []
    if len(vocab) == 1:
        notes.append(
            f"there is one class only, {shortened(vocab[0])}: nothing is told apart, and an error "
            "of 0 says nothing; is the path a folder too high or too low?"
        )
    alike = defaultdict(list)
    for name in vocab:
        spelled = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        number = WHOLE_NUMBER.fullmatch(spelled)
        alike[float(spelled) if number else spelled].append(name)
    if twins := [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]:
        notes.append(
            f"{len(twins)} class names differ only in case, blanks, Unicode form or the way that a "
            f"number is written: {first_few(twins)}; give one of them to all if they are one class"
        )
    if gaps := [name for name in vocab if _GAPS.fullmatch(name.strip().lower())]:
        notes.append(
            f"classes are called {first_few(gaps)}, as gaps in tables are; leave their pictures "
            "out if they have no label"
        )
    if odd := [repr(name) for name in vocab if name != name.strip() or name != printable(name)]:
        notes.append(
            f"{len(odd)} class names have blanks at their ends, line breaks or control characters: "
            f"{first_few(odd)}; look into where they come from"
        )
    return notes
