"""ImageGrid: the pictures of some items in pages; to find, sort, enlarge, choose and mark."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anywidget
import traitlets

from nbfinetune.data.corrections import Corrections
from nbfinetune.interpretation.activation_map import overlay
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.item_list import ORDERS, file_name, found, in_words, ordered
from nbfinetune.interpretation.thumbnails import as_jpeg, thumbnail
from nbfinetune.rendering.names import printable, shown
from nbfinetune.rendering.numbers import counted

_HERE = Path(__file__).parent
PAGE = 36  # pictures: 200 kB, on screen at once
_THUMB, _LARGE = 128, 1200  # px


def _files(*names: str) -> str:
    return "\n".join((_HERE / name).read_text() for name in names)


class ImageGrid(anywidget.AnyWidget):
    """Thumbnails with what is known of them; closed until `show`.

    Parameters
    ----------
    interp : the items
    corrections : takes the marks

    Attributes
    ----------
    items : those of the list, in its own order
    found : those that `query` leaves, in the order that is chosen
    query : part of the names of files or classes to show, "" for all
    order : one of `ORDERS`
    page : the page that is shown, from 0
    enlarged : the item that is shown large, -1 if none is
    looking : class whose activation map lies over it: "off", "predicted" or "actual"
    mark : the newest mark as [items, action, label]
    """

    _esm = _files("pictures.js", "enlarged_picture.js", "image_grid.js")
    _css = _files("image_grid.css", "enlarged_picture.css")
    heading = traitlets.Unicode().tag(sync=True)
    thumbs = traitlets.List().tag(sync=True)
    marks = traitlets.List(traitlets.Unicode()).tag(sync=True)
    n_pages = traitlets.Int(0).tag(sync=True)
    page = traitlets.Int(0).tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)
    lists = traitlets.Int(0, help="how many were shown").tag(sync=True)
    count = traitlets.Unicode(help="how many pictures are found").tag(sync=True)
    n_items = traitlets.Int(0).tag(sync=True)
    query = traitlets.Unicode().tag(sync=True)
    order = traitlets.Enum(tuple(ORDERS), next(iter(ORDERS))).tag(sync=True)
    orders = traitlets.List([[key, text] for key, (text, _) in ORDERS.items()]).tag(sync=True)
    vocab = traitlets.List(traitlets.Unicode()).tag(sync=True)
    large = traitlets.Dict().tag(sync=True)
    large_mark = traitlets.Unicode().tag(sync=True)
    looking = traitlets.Enum(("off", "predicted", "actual"), "off").tag(sync=True)
    look = traitlets.Dict(help="the map over the large picture").tag(sync=True)
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
        self.found: list[int] = []
        corrections.watch(self._hear)
        self.on_msg(self._on_msg)
        self.observe(lambda change: self._draw(), "page")
        self.observe(lambda change: self._find(), ["query", "order"])
        self.observe(lambda change: self._enlarge(change["new"]), "enlarged")
        self.observe(lambda change: self._look(), "looking")
        self.observe(lambda change: self._mark(change["new"]), "mark")

    def show(self, items: Sequence[int], heading: str) -> None:
        """Open the panel at the first page of these items."""
        with self.hold_sync():
            self.heading, self.problem, self.enlarged = heading, "", -1
            self.items = []  # nothing is found while the choices are reset
            self.query, self.order = "", next(iter(ORDERS))
            self.items = list(items)
            self.n_items, self.lists = len(self.items), self.lists + 1
            self._find()

    def _on_msg(self, widget: object, content: dict, buffers: list) -> None:
        match content.get("event"):
            case "page":
                self.page = min(max(int(content["page"]), 0), max(self.n_pages - 1, 0))
            case "find":
                self.query = str(content["text"])
            case "sort":
                self.order = content["order"]
            case "enlarge":
                self.enlarged = int(content["item"])
            case "step" if self.enlarged in self.found:
                at = self.found.index(self.enlarged) + int(content["by"])
                self.enlarged = self.found[min(max(at, 0), len(self.found) - 1)]
            case "look":
                self.looking = content["of"]
            case "mark":
                self.mark = []  # the same mark twice is two events
                label = self._name_of.get(content["label"], content["label"])
                self.mark = [[int(i) for i in content["items"]], content["action"], label]
            case "undo":
                self._do(self.corrections.undo_mark)

    def _find(self) -> None:
        """Find and sort anew, and show the first page."""
        interp = self.interp
        among = found(interp, self.items, self.query) if self.query.strip() else self.items
        self.found = ordered(interp, among, self.order)
        pictures, query = counted(len(self.found), "picture"), self.query.strip()
        with self.hold_sync():
            self.count = (
                f"{pictures} of {len(self.items):,} with {shown(query)} in file or class"
                if query
                else ""
            )
            self.n_pages = -(-len(self.found) // PAGE)
            if self.page:
                self.page = 0  # draws
            else:
                self._draw()

    def _draw(self) -> None:
        on_page = self.found[self.page * PAGE : (self.page + 1) * PAGE]
        # Files are read and decoded side by side; both let other threads run.
        with ThreadPoolExecutor() as pool:
            thumbs = list(pool.map(self._thumb, on_page))
        with self.hold_sync():
            self.thumbs = thumbs
            self._show_marks()
            self.version += 1

    def _thumb(self, i: int) -> dict:
        return self._picture(lambda: thumbnail(self.interp, i, _THUMB)) | self._known(i)

    def _picture(self, make: Callable[[], bytes]) -> dict:
        try:
            return {"jpeg": make(), "problem": ""}
        except (ValueError, OSError) as error:
            return {"jpeg": None, "problem": printable(f"cannot be shown: {error}")}

    def _known(self, i: int) -> dict:
        """What is known of an item, as texts."""
        interp = self.interp
        actual, predicted = interp.vocab[interp.targets[i]], interp.vocab[interp.predicted[i]]
        return {
            "item": i,
            "words": in_words(interp, i),
            "actual": printable(actual),
            "predicted": printable(predicted),
            "p_actual": f"{interp.target_probs[i]:.2f}",
            "p_predicted": f"{interp.predicted_probs[i]:.2f}",
            "loss": f"{interp.losses[i]:.2f}",
            "file": printable(file_name(interp, i)),
            "top": [
                printable(interp.vocab[k]) for k in interp.top[i].tolist() if k != interp.targets[i]
            ],
        }

    def _enlarge(self, i: int) -> None:
        if i < 0:
            return
        interp, path = self.interp, self.interp.path(i)
        at = self.found.index(i) if i in self.found else 0
        top = zip(interp.top[i].tolist(), interp.top_probs[i].tolist(), strict=True)
        picture = self._picture(lambda: as_jpeg(interp.image(i), _LARGE))
        large = picture | self._known(i)
        large |= {
            "opened": self.large.get("opened", 0) + 1,
            "position": at,
            "n": len(self.found),
            "path": printable(path.absolute()) if path else "",
            "classes": [[printable(interp.vocab[k]), p] for k, p in top],
        }
        with self.hold_sync():
            self.large = large
            self._show_marks()
        self._look()
        if self.found:
            self.page = at // PAGE

    def _look(self) -> None:
        """Lay the map over the large picture, or say why there is none."""
        i = self.enlarged
        if i < 0 or self.looking == "off":
            self.look = {}
            return
        jpeg, line = None, ""
        try:
            jpeg, line = self._map(i)
        except (ValueError, RuntimeError, OSError) as error:
            line = printable(error)
        self.look = {"item": i, "of": self.looking, "jpeg": jpeg, "line": line}

    def _map(self, i: int) -> tuple[bytes, str]:
        interp = self.interp
        if interp.network is None:
            raise ValueError("these predictions come from no learner, so nothing can be asked")
        k = int((interp.predicted if self.looking == "predicted" else interp.targets)[i])
        maps = interp.network.maps(interp.dataset, i)
        activation, name = maps.maps[k], printable(interp.vocab[k])
        line = f"what speaks for {self.looking} {name} is bright (logit {maps.logits[k]:.2f})"
        if activation.max() <= 0:
            line = f"nothing here speaks for {self.looking} {name} (logit {maps.logits[k]:.2f})"
        note = interp.network.note
        line += f"; {note}" if note else ""
        return as_jpeg(overlay(interp.network.seen(interp.dataset, i), activation), _LARGE), line

    def _mark(self, mark: list) -> None:
        if mark:
            self._do(lambda: self.mark_items(*mark))

    def mark_item(self, i: int, action: str, label: str = "") -> None:
        """Mark a picture; see `mark_items`."""
        self.mark_items([i], action, label)

    def mark_items(self, items: Sequence[int], action: str, label: str = "") -> None:
        """Mark pictures alike, as the lists do; one undo takes all of these marks back.

        Parameters
        ----------
        items : numbers of the items
        action : "relabel", "remove" or "fine"
        label : the class, to relabel

        Raises
        ------
        ValueError
            For another action or class, no items, or a picture that is in no file.
        """
        if not len(items):
            raise ValueError("no picture is chosen; choose some by their boxes")
        paths = {self.interp.path(i): self.interp.vocab[self.interp.targets[i]] for i in items}
        if None in paths:
            raise ValueError("only pictures in files can be marked, and these have none")
        if action == "relabel" and label not in self.interp.vocab:
            raise ValueError(f"no class {label!r}")
        self.corrections.mark_all(paths, action, label)

    def _hear(self) -> None:
        """The marks have changed, by whomever."""
        with self.hold_sync():
            self._show_marks()
            self.said = printable(self.corrections.said)

    def _show_marks(self) -> None:
        """Only the marks anew: the pictures stay, and with them the focus."""
        with self.hold_sync():
            self.marks = [self._mark_of(t["item"]) for t in self.thumbs]
            self.large_mark = self._mark_of(self.large["item"]) if self.large else ""
            self.n_marks = len(self.corrections.marks)

    def _mark_of(self, i: int) -> str:
        path = self.interp.path(i)
        return printable(str(self.corrections.marks.get(path and path.absolute(), "")))

    def _do(self, work: Callable[[], object]) -> None:
        """Errors would be swallowed: they are shown."""
        self.problem = ""
        try:
            work()
        except (ValueError, OSError) as error:
            self.problem = printable(str(error))
