"""Items: pictures of a source with their labels, as a data set of (picture, class index)."""

from collections.abc import Sequence
from pathlib import Path

from nbfinetune.arguments import is_missing
from nbfinetune.data.datasets import UNLABELLED
from nbfinetune.rendering.names import first_few, shown


class SourceItems:
    """Pictures and labels by number; what is asked of a source is in its children.

    Parameters
    ----------
    name : what the source is called in messages
    labels : of each item a class index, or a text until `use` has looked it up; or None for all
    classes : the names of the class indices, None if they have none
    """

    def __init__(self, name: str, labels: list | None, classes: list[str] | None = None) -> None:
        self.name, self.labels, self.classes = name, labels, classes

    def picture(self, i: int) -> object:
        """The picture of item i, as `as_image` takes it."""
        raise NotImplementedError

    def file_of(self, i: int) -> Path | None:
        """The file of item i, None if it has none."""
        return None

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, i: int) -> tuple[object, int]:
        i = int(i)
        return self.picture(i), UNLABELLED if self.labels is None else self.labels[i]

    @property
    def texts(self) -> list[str]:
        """The labels, if they are texts."""
        named = bool(self.labels) and isinstance(self.labels[0], str)
        return self.labels if named else []

    def use(self, vocab: Sequence[str]) -> None:
        """Take texts for names of these classes, or for indices where no class is a number.

        Raises
        ------
        ValueError
            If there are others among them.
        """
        place = {name: k for k, name in enumerate(vocab)}
        if not any(name.isdecimal() for name in vocab) and all(map(str.isdecimal, self.texts)):
            place |= {str(k): k for k in range(len(vocab))}
        if unknown := sorted(set(self.texts) - set(place)):
            raise ValueError(
                f"{self.name} has labels that are no class: {first_few(unknown)}; the classes are "
                f"{first_few(list(vocab))}"
            )
        self.labels, self.classes = [place[text] for text in self.texts], list(vocab)


def check_labels(labels: Sequence, name: str, how: str) -> None:
    """Refuse labels of which some are missing, or that are of several kinds.

    Parameters
    ----------
    labels : whole numbers from 0 up, or texts; None where there is none
    how : what to type to leave items out
    """
    numbers = range(len(labels))
    if missing := [i for i in numbers if is_missing(labels[i]) or labels[i] == UNLABELLED]:
        raise ValueError(
            f"{name}: {len(missing)} of {len(labels)} items have no label (items "
            f"{first_few(missing)}); {how}"
        )
    kind = str if isinstance(labels[0], str) else int
    if odd := [i for i in numbers if not isinstance(labels[i], kind) or labels[i] < kind()]:
        raise ValueError(
            f"{name}: {len(odd)} of {len(labels)} labels are no class (item {odd[0]}: "
            f"{shown(labels[odd[0]])}); give class indices from 0 up, or class names"
        )
