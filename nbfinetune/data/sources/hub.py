"""Hub: data sets of Hugging Face, by the features that their columns have.

Pictures stay in their Arrow files, which are memory-mapped, and are decoded one by one, by the
rules of picture files. The library is the user's: it is never imported.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nbfinetune.data.arguments import say
from nbfinetune.data.sources.items import SourceItems, check_labels
from nbfinetune.rendering.names import first_few

if TYPE_CHECKING:
    from datasets import Dataset

_TRAIN, _VALID = ("train", "training"), ("validation", "valid", "val", "dev", "test", "testing")


def of_hub(value: object) -> bool:
    """Whether this comes from the library datasets."""
    return any(kind.__module__.partition(".")[0] == "datasets" for kind in type(value).__mro__)


def check_hub(value: object, name: str) -> None:
    """Refuse what is no data set with items by number, with what to type."""
    if isinstance(value, dict):
        parts = [f"{key!r} ({len(value[key])})" for key in value if hasattr(value[key], "__len__")]
        given = list(value)
        train = next((key for key in given if key.lower() in _TRAIN), (*given, "train")[0])
        valid = [key for side in _VALID for key in given if key.lower() == side and key != train]
        both = ", ".join(f"ds[{key!r}]" for key in [train, *valid[:1]])
        how = f"its parts: from_datasets({both})" if name == "train" else "one of them: ds[NAME]"
        raise ValueError(
            f"{name} is a {type(value).__name__} of {first_few(parts or given)}; give {how}"
        )
    if not hasattr(value, "__len__"):
        raise ValueError(
            f"{name} is a {type(value).__name__}, which has no items by number; load it without "
            "streaming=True"
        )


class HubItems(SourceItems):
    """The pictures and labels of a `datasets.Dataset`.

    Parameters
    ----------
    dataset : has a column of the feature Image, and one of ClassLabel, texts or whole numbers
    name : for messages
    image_col, label_col : the columns; None = the only one there is
    labelled : True = it must have labels, None = it may, False = none are read
    notes : what is not used of it is added

    Raises
    ------
    ValueError
        If a column is not there, is of another kind, or could be several, with their names.
    """

    def __init__(
        self,
        dataset: "Dataset",
        name: str,
        image_col: str | None,
        label_col: str | None,
        notes: list[str],
        *,
        labelled: bool | None = True,
    ) -> None:
        self._features, self._n = dataset.features, len(dataset)
        self._files: dict[int, Path | None] = {}  # to read a row costs as much as to decode it
        self.image_col = self._image_column(name, image_col)
        if dataset.format["type"] == "custom":
            say(notes, f"{name} has a transform of its own, which is not used: give size= and aug=")
        plain = dataset.with_format(None)
        kind = type(self._features[self.image_col])
        bare = plain.select_columns([self.image_col])
        self._pictures = bare.cast_column(self.image_col, kind(decode=False))
        column = None if labelled is False else self._label_column(name, label_col, labelled)
        if column is None:
            super().__init__(name, None)
            return
        feature = self._features[column]
        labels = plain.select_columns([column])[:][column]
        if labelled is None and all(label in (None, -1) for label in labels):
            super().__init__(name, None)  # a test set whose labels are kept back
            return
        names = getattr(feature, "names", None)
        if names is None:  # values of a column: a class each
            labels = [label if label is None else str(label) for label in labels]
        check_labels(labels, name, _without(name, column, names))
        super().__init__(name, labels, None if names is None else list(names))

    def __len__(self) -> int:
        return self._n

    def picture(self, i: int) -> bytes | str | None:
        """See `SourceItems`; what is there of bytes and path."""
        found = self._pictures[i][self.image_col] or {}
        path = found.get("path")
        self._files[i] = Path(path) if path and os.path.isabs(path) else None
        return found.get("bytes") or path

    def file_of(self, i: int) -> Path | None:
        """See `SourceItems`; pictures inside the Arrow files have none."""
        if i not in self._files:
            self.picture(i)
        file = self._files[i]
        return file if file is not None and file.is_file() else None

    def _of(self, *kinds: str) -> list[str]:
        """The columns whose feature is of one of these kinds, named as in the library."""
        return [
            name
            for name, feature in self._features.items()
            if type(feature).__name__ in kinds or getattr(feature, "dtype", None) in kinds
        ]

    def _given(self, name: str, option: str, column: str) -> str:
        if column not in self._features:
            raise ValueError(
                f"{name} has no column {column!r} ({option}); it has {first_few([*self._features])}"
            )
        return column

    def _image_column(self, name: str, column: str | None) -> str:
        found = self._of("Image")
        if column is not None:
            if self._given(name, "image_col", column) in found:
                return column
            raise ValueError(f"{name}[{column!r}] is {self._kind(column)}; {_cast(name, column)}")
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(
                f"{name} has {len(found)} columns of pictures, {first_few(found)}; say which: "
                f"image_col={found[0]!r}"
            )
        kinds = [f"{key}: {self._kind(key)}" for key in self._features]
        texts = [*self._of("string", "large_string"), "image"]
        raise ValueError(
            f"{name} has no column of pictures, of the feature Image; it has {first_few(kinds)}; "
            f"{_cast(name, texts[0])}"
        )

    def _label_column(self, name: str, column: str | None, labelled: bool | None) -> str | None:
        numbers = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
        usable = self._of("ClassLabel", "string", "large_string", "bool", *numbers)
        if column is not None:
            if self._given(name, "label_col", column) in usable:
                return column
            raise ValueError(
                f"{name}[{column!r}] is {self._kind(column)}, no label; give a column of class "
                "names or whole numbers, one for each picture"
            )
        found = self._of("ClassLabel") or usable
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(
                f"{name} has {len(found)} columns that may be the label, {first_few(found)}; say "
                f"which: label_col={found[0]!r}"
            )
        if labelled is None:
            return None
        kinds = [f"{key}: {self._kind(key)}" for key in self._features]
        raise ValueError(
            f"{name} has no column of labels; it has {first_few(kinds)}; give data with one, of "
            "class names or whole numbers"
        )

    def _kind(self, column: str) -> str:
        feature = self._features[column]
        kind, dtype = type(feature).__name__, getattr(feature, "dtype", None)
        return f"{dtype}s" if kind == "Value" else kind


def _cast(name: str, column: str) -> str:
    return f"of files, {name}.cast_column({column!r}, datasets.Image()) makes pictures"


def _without(name: str, column: str, names: list[str] | None) -> str:
    test = "is not None" if names is None else ">= 0"
    return f"leave them out: {name}.filter(lambda item: item[{column!r}] {test})"
