"""ImageGrid: the pictures of some items, in pages, to enlarge and to mark."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anywidget
import traitlets

from nbfinetune.data.corrections import Corrections
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.thumbnails import as_jpeg, thumbnail
from nbfinetune.rendering.names import bidi_isolated, printable

_HERE = Path(__file__).parent
PAGE = 36  # pictures: 200 kB, on screen at once
_THUMB, _LARGE = 112, 800  # px


class ImageGrid(anywidget.AnyWidget):
    """Thumbnails with what is known of them; closed until `show`.

    Parameters
    ----------
    interp : the items
    corrections : takes the marks

    Attributes
    ----------
    page : the page that is shown, from 0
    enlarged : the item that is shown large, -1 if none is
    mark : the newest mark as [item, action, label]
    """

    _esm = _HERE / "image_grid.js"
    _css = _HERE / "image_grid.css"
    heading = traitlets.Unicode().tag(sync=True)
    thumbs = traitlets.List().tag(sync=True)
    marks = traitlets.List(traitlets.Unicode()).tag(sync=True)
    n_pages = traitlets.Int(0).tag(sync=True)
    page = traitlets.Int(0).tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)
    vocab = traitlets.List(traitlets.Unicode()).tag(sync=True)
    large = traitlets.Dict().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    n_marks = traitlets.Int(0).tag(sync=True)
    enlarged = traitlets.Int(-1)
    mark = traitlets.List()

    def __init__(self, interp: ClassificationInterpretation, corrections: Corrections) -> None:
        self._name_of = {printable(name): name for name in interp.vocab}
        super().__init__(vocab=list(self._name_of), n_marks=len(corrections.marks))
        self.interp, self.corrections = interp, corrections
        self.items: list[int] = []
        corrections.watch(self._show_marks)
        self.on_msg(self._on_msg)
        self.observe(lambda change: self._draw(), "page")
        self.observe(lambda change: self._enlarge(change["new"]), "enlarged")
        self.observe(lambda change: self._mark(change["new"]), "mark")

    def show(self, items: Sequence[int], heading: str) -> None:
        """Open the panel at the first page of these items."""
        self.items, self.heading, self.problem = list(items), heading, ""
        self.n_pages = -(-len(self.items) // PAGE)
        self.enlarged = -1
        if self.page:
            self.page = 0  # draws
        else:
            self._draw()

    def _on_msg(self, widget: object, content: dict, buffers: list) -> None:
        match content.get("event"):
            case "page":
                self.page = min(max(int(content["page"]), 0), max(self.n_pages - 1, 0))
            case "enlarge":
                self.enlarged = int(content["item"])
            case "mark":
                self.mark = []  # the same mark twice is two events
                label = self._name_of.get(content["label"], content["label"])
                self.mark = [int(content["item"]), content["action"], label]
            case "undo":
                self._do(self._undo)

    def _draw(self) -> None:
        shown = self.items[self.page * PAGE : (self.page + 1) * PAGE]
        # Files are read and decoded side by side; both let other threads run.
        with ThreadPoolExecutor() as pool:
            thumbs = list(pool.map(self._thumb, shown))
        with self.hold_sync():
            self.thumbs = thumbs
            self._show_marks()
            self.version += 1

    def _thumb(self, i: int) -> dict:
        interp = self.interp
        picture, problem = None, ""
        try:
            picture = thumbnail(interp, i, _THUMB)
        except (ValueError, OSError) as error:
            problem = printable(f"cannot be shown: {error}")
        actual, predicted = interp.vocab[interp.targets[i]], interp.vocab[interp.predicted[i]]
        path = interp.path(i)
        file = path.name if path else f"item {i}"
        p_actual, p_predicted = f"{interp.target_probs[i]:.2f}", f"{interp.predicted_probs[i]:.2f}"
        loss = f"{interp.losses[i]:.2f}"
        f, a, p = map(bidi_isolated, (file, actual, predicted))
        words = f"{f}: actual {a} ({p_actual}), predicted {p} ({p_predicted}), loss {loss}"
        return {
            "item": i,
            "words": words,
            "jpeg": picture,
            "problem": problem,
            "actual": printable(actual),
            "predicted": printable(predicted),
            "p_actual": p_actual,
            "p_predicted": p_predicted,
            "loss": loss,
            "file": printable(file),
            "top": [
                printable(interp.vocab[k]) for k in interp.top[i].tolist() if k != interp.targets[i]
            ],
        }

    def _enlarge(self, i: int) -> None:
        if i >= 0:
            self._show_large(i)

    def _show_large(self, i: int) -> None:
        shown = {"item": i, "opened": self.large.get("opened", 0) + 1, "jpeg": None, "problem": ""}
        try:
            shown["jpeg"] = as_jpeg(self.interp.image(i), _LARGE)
        except (ValueError, OSError) as error:
            shown["problem"] = printable(f"cannot be shown: {error}")
        self.large = shown

    def _mark(self, mark: list) -> None:
        if mark:
            self._do(lambda: self.mark_item(*mark))

    def mark_item(self, i: int, action: str, label: str = "") -> None:
        """Mark a picture, as the list under it does.

        Parameters
        ----------
        i : number of the item
        action : "relabel", "remove" or "fine"
        label : the class, to relabel

        Raises
        ------
        ValueError
            For another action or class, or a picture that is in no file.
        """
        path = self.interp.path(i)
        if path is None:
            raise ValueError("only pictures in files can be marked, and these have none")
        was = self.interp.vocab[self.interp.targets[i]]
        if action == "relabel" and label not in self.interp.vocab:
            raise ValueError(f"no class {label!r}")
        self.corrections.mark(path, action, was, label)
        self._say(f"{path.name}: {self.corrections.marks[path.absolute()]}")

    def _undo(self) -> None:
        self._say(self.corrections.undo_mark())

    def _say(self, text: str) -> None:
        self.said = f"{printable(text)} ({len(self.corrections.marks)} marked; %clean lists them)"

    def _show_marks(self) -> None:
        """Only the marks anew: the pictures stay, and with them the focus."""
        marks = self.corrections.marks
        paths = [self.interp.path(t["item"]) for t in self.thumbs]
        with self.hold_sync():
            self.marks = [printable(str(marks.get(path and path.absolute(), ""))) for path in paths]
            self.n_marks = len(marks)

    def _do(self, work) -> None:
        """Errors would be swallowed: they are shown."""
        self.problem = ""
        try:
            work()
        except (ValueError, OSError) as error:
            self.problem = printable(str(error))
