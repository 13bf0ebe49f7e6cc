"""PanelPlace: where the pictures of a choice open, beside it or under it, and their heading."""

from pathlib import Path

import ipywidgets

from nbfinetune.rendering.names import bidi_isolated

_HERE = Path(__file__).parent


def joined(*names: str) -> str:
    """Files of the front end as one: a widget's module cannot import another."""
    return "".join((_HERE / name).read_text("utf-8") for name in names)


def split(choice: ipywidgets.Widget, panel: ipywidgets.Widget) -> ipywidgets.Box:
    """Both, side by side where there is room; `panel_place.js` in `choice` decides."""
    box = ipywidgets.Box([choice, panel])
    box.add_class("nbft-split")
    return box


def pair_text(actual: str, predicted: str, n: int) -> str:
    """What n pictures show, as a heading."""
    pictures = {0: "no picture", 1: "1 picture"}.get(n, f"{n:,} pictures")
    return f"actual {bidi_isolated(actual)}, predicted {bidi_isolated(predicted)}: {pictures}"
