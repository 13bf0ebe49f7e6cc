"""Item list: what is known of single items, which of them a text finds, their orders, a report."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.thumbnails import thumbnail
from nbfinetune.rendering.names import bidi_isolated, html_text, printable
from nbfinetune.rendering.tables import Table, picture_row

_ROWS = 10  # of a report's table
_PICTURES, _SIDE = 12, 120  # of a report, and px of each: 5 kB


def file_name(interp: ClassificationInterpretation, i: int) -> str:
    """The name of an item's file, else its number."""
    path = interp.path(i)
    return path.name if path else f"item {i}"


def in_words(interp: ClassificationInterpretation, i: int) -> str:
    """An item in one line: file, actual and predicted class with probabilities, loss."""
    actual, predicted = interp.vocab[interp.targets[i]], interp.vocab[interp.predicted[i]]
    f, a, p = map(bidi_isolated, (file_name(interp, i), actual, predicted))
    return (
        f"{f}: actual {a} ({interp.target_probs[i]:.2f}), predicted {p} "
        f"({interp.predicted_probs[i]:.2f}), loss {interp.losses[i]:.2f}"
    )


def found(interp: ClassificationInterpretation, items: Sequence[int], text: str) -> list[int]:
    """Those whose file, actual or predicted class has the text in its name, in any case."""
    part = text.strip().casefold()
    classes = {k for k, name in enumerate(interp.vocab) if part in name.casefold()}
    targets, predicted = interp.targets.tolist(), interp.predicted.tolist()
    return [
        i
        for i in items
        if targets[i] in classes
        or predicted[i] in classes
        or part in file_name(interp, i).casefold()
    ]


def _by_file(interp: ClassificationInterpretation, i: int) -> list:
    """2.png comes before 10.png."""
    parts = re.split(r"(\d+)", file_name(interp, i).casefold())
    return [int(part) if k % 2 else part for k, part in enumerate(parts)]


# What a list can be sorted by: what that is called, and the key of an item, None for its own order.
_Key = Callable[[ClassificationInterpretation, int], object]
ORDERS: dict[str, tuple[str, _Key | None]] = {
    "listed": ("as listed", None),
    "loss": ("loss, largest first", lambda interp, i: -float(interp.losses[i])),
    "predicted": (
        "p(predicted), largest first",
        lambda interp, i: -float(interp.predicted_probs[i]),
    ),
    "actual": ("p(actual), smallest first", lambda interp, i: float(interp.target_probs[i])),
    "file": ("file name", _by_file),
}


def ordered(interp: ClassificationInterpretation, items: Sequence[int], order: str) -> list[int]:
    """The items in one of `ORDERS`; equals stay in the order they have."""
    key = ORDERS[order][1]
    return list(items) if key is None else sorted(items, key=lambda i: key(interp, i))


@dataclass(frozen=True)
class ItemsReport:
    """A list of items with their predictions and the first pictures, as it stays in a notebook.

    Parameters
    ----------
    interp : the predictions
    items : numbers of the items
    heading : what they are
    """

    interp: ClassificationInterpretation
    items: Sequence[int] = field(repr=False)
    heading: str

    @property
    def table(self) -> Table:
        """A row an item, up to ten."""
        interp = self.interp
        rows = []
        for i in self.items[:_ROWS]:
            names = [interp.vocab[k] for k in (interp.targets[i], interp.predicted[i])]
            values = (interp.target_probs[i], interp.predicted_probs[i], interp.losses[i])
            rows.append((file_name(interp, i), *names, *(f"{v:.2f}" for v in values)))
        columns = ("file", "actual", "predicted", "p(actual)", "p(predicted)", "loss")
        left = len(self.items) - _ROWS
        return Table(self.heading, columns, rows, f"and {left:,} more" if left > 0 else "")

    def __repr__(self) -> str:
        return repr(self.table) if self.items else printable(self.heading)

    def _repr_html_(self) -> str:
        heading = f"<div>{html_text(self.heading)}</div>"
        if not self.items:
            return heading
        pictures = picture_row(map(self._picture, self.items[:_PICTURES]))
        return heading + pictures + replace(self.table, title="")._repr_html_()

    def _picture(self, i: int) -> tuple[bytes | str, str, list[str]]:
        """JPEG or why there is none, alternative text and the lines of the caption."""
        interp = self.interp
        actual, predicted = interp.vocab[interp.targets[i]], interp.vocab[interp.predicted[i]]
        caption = [
            f"actual {actual} {interp.target_probs[i]:.2f}",
            f"predicted {predicted} {interp.predicted_probs[i]:.2f}",
        ]
        try:
            picture = thumbnail(interp, i, _SIDE)
        except (ValueError, OSError) as error:
            picture = f"cannot be shown: {error}"
        return picture, in_words(interp, i), caption
