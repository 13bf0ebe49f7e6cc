"""PredictDemo: takes a picture, chosen, dropped or pasted, and shows what it most probably is."""

from collections.abc import Callable, Sequence
from pathlib import Path

import anywidget
import traitlets

from nbfinetune.rendering.names import bidi_isolated, printable, shortened
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status

_HERE = Path(__file__).parent
_LONGEST = 80  # characters of the name of a file

# (name, bytes of the file) -> the most probable classes with their probabilities, first ones first
Predict = Callable[[str, bytes], Sequence[tuple[str, float]]]


class _PicturePanel(anywidget.AnyWidget):
    """The part in the page.

    Attributes
    ----------
    picture : the newest as {n, name, content}
    answer : what is shown of it, as {n, name, classes, problem}; n is the page's number for it
    """

    _esm = "\n".join(
        file.read_text("utf-8")
        for file in (_HERE.parent / "pictures.js", _HERE / "predict_demo.js")
    )
    _css = (_HERE / "predict_demo.css").read_text("utf-8")
    title = traitlets.Unicode().tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)
    picture = traitlets.Dict()

    def __init__(self, title: str) -> None:
        super().__init__(title=title)
        self.on_msg(self._on_msg)

    def _on_msg(self, widget: object, content: dict, buffers: list) -> None:
        if content.get("event") == "picture":
            name = shortened(content["name"] or "picture", _LONGEST)
            self.picture = {"n": content["n"], "name": name, "content": bytes(buffers[0])}


class PredictDemo(Screen):
    """A picture and its most probable classes, as bars and as text.

    Parameters
    ----------
    predict : raises ValueError or RuntimeError with the reason, where it cannot
    title : what predicts, in a few words

    Attributes
    ----------
    classes : the most probable ones of the newest picture, as (class, probability)
    """

    classes = traitlets.List()

    def __init__(self, predict: Predict, title: str) -> None:
        self._predict, self.status = predict, Status()
        self._panel = _PicturePanel(printable(title))
        super().__init__([self._panel, self.status])
        self.words = f"{title}: choose, drop or paste a picture"
        self.add_class("nbft-demo")
        self._panel.observe(lambda change: self._show(**change["new"]), "picture")

    def _show(self, n: float, name: str, content: bytes) -> None:
        problem = ""
        try:
            self.classes = [(str(label), float(p)) for label, p in self._predict(name, content)]
        except (ValueError, RuntimeError, OSError) as error:  # else it would be swallowed
            self.classes, problem = [], printable(error)
        shown = [[bidi_isolated(label), p] for label, p in self.classes]
        self._panel.answer = {"n": n, "name": name, "classes": shown, "problem": problem}
        best = [f"{label} {p:.2f}" for label, p in shown]
        self.status.text = f"{name}: {', '.join(best)}" if best else ""
