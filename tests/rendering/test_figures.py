"""Figures look the same whatever the user's settings are, which they leave alone."""

import base64
import io
import re
import subprocess
import sys
import threading

import matplotlib
import numpy as np
import pytest
from matplotlib import style
from matplotlib.text import Text
from PIL import Image

from nbfinetune.rendering import axes, figures


def drawn(names: tuple[str, ...] = ("a", "b", "c")) -> "figures.Figure":
    figure = figures.new_figure(4, 2.5)
    ax = figure.subplots()
    axes.style_axes(ax)
    ax.set_xlim(0, 10)
    axes.scale_y(ax, (0, 1), "loss")
    values = axes.linear_ticks(0, 10)
    axes.ticks(ax, "x", values, axes.number_texts(values))
    axes.draw_points(ax, [1, 2], [0.2, 0.4], axes.colour_of(1))
    lines = [
        axes.draw_line(ax, [0, 10], [k / 3, 0.5], axes.colour_of(k), marker="o")
        for k in range(len(names))
    ]
    axes.legend(ax, lines, names)
    axes.mark(ax, [(3 * k, name, "#555555") for k, name in enumerate(names)])
    return figure


@pytest.mark.parametrize("name", ["dark_background", "ggplot", "fivethirtyeight", "bmh"])
def test_the_users_style_is_neither_used_nor_changed(name: str) -> None:
    plain = figures.png(drawn())
    with style.context(name):
        before = dict(matplotlib.rcParams)
        assert figures.png(drawn()) == plain
        assert dict(matplotlib.rcParams) == before


def test_pyplot_and_its_back_end_are_left_alone() -> None:
    code = """
import sys
from nbfinetune.rendering import axes, figures
figures.png(figures.new_figure(2, 2))
print("matplotlib.pyplot" in sys.modules)
import matplotlib
print(matplotlib.rcParams._get("backend") is matplotlib.rcsetup._auto_backend_sentinel)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_the_png_is_sharp_white_and_small() -> None:
    data = figures.png(drawn())
    image = Image.open(io.BytesIO(data))
    assert image.size == (800, 500)  # twice the CSS px
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert len(data) < 20_000


def test_a_figure_of_many_pixels_is_not_doubled() -> None:
    image = Image.open(io.BytesIO(figures.png(figures.new_figure(30, 3, 100))))
    assert image.size == (4000, 400)


def test_the_html_says_what_is_seen_and_turns_dark_with_the_page() -> None:
    html = figures.figure_html(drawn(), 'a "plot" <b>', "below <i>")
    assert 'alt="a &quot;plot&quot; &lt;b&gt;"' in html
    assert "<figcaption>below &lt;i&gt;</figcaption>" in html
    assert 'width="400"' in html
    assert "filter:invert" in html
    data = re.search(r'src="data:image/png;base64,([^"]+)"', html)[1]
    assert base64.b64decode(data) == figures.png(drawn())


def test_names_are_drawn_as_they_are_and_what_no_font_has_warns_of_nothing(recwarn) -> None:
    names = ("$x^2", "\\frac{", "<b>", "caf\udce9", "two\nlines", "\U0010fffd", "_hidden", "%s")
    figure = drawn(names)
    figures.png(figure)
    assert [str(w.message) for w in recwarn] == []
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == [
        *("$x^2", "\\frac{", "<b>", "caf\\udce9", "two\\nlines", "?", "_hidden", "%s"),
    ]


def test_figures_may_be_drawn_in_several_threads() -> None:
    plain, found = figures.png(drawn()), []
    threads = [
        threading.Thread(target=lambda: found.append(figures.png(drawn()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [plain] * 4


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 0.5, 1], ["0.0", "0.5", "1.0"]),
        ([0, 0.25, 0.5], ["0.00", "0.25", "0.50"]),
        ([0, 500, 1000], ["0", "500", "1,000"]),
        ([0, 5e-4, 1e-3, 1.5e-3], ["0", "5e-4", "1e-3", "1.5e-3"]),
        ([-0.2, 0, 0.2], ["-0.2", "0.0", "0.2"]),
        ([], []),
    ],
)
def test_the_numbers_of_an_axis_have_one_form(values, texts) -> None:
    assert axes.number_texts(values) == texts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1e-7, 10, [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10]),
        (2e-3, 6e-2, [2e-3, 5e-3, 1e-2, 2e-2, 5e-2]),
    ],
)
def test_the_numbers_of_a_logarithmic_axis_are_round(low, high, expected) -> None:
    assert axes.log_ticks(low, high) == pytest.approx(expected)


def test_names_above_axes_do_not_overlap() -> None:
    figure = figures.new_figure(6.4, 3.6)
    ax = figure.subplots()
    axes.style_axes(ax)
    ax.set(xscale="log", xlim=(1e-7, 10), ylim=(0, 1))
    rates = (1e-7, 6e-4, 1.2e-3, 1.9e-3, 3e-2, 10.0)
    axes.mark(ax, [(lr, f"suggestion {lr:.1e}", "#555555") for lr in rates])
    figure.draw_without_rendering()
    assert len(ax.texts) == len(rates)
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the lines
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])
        assert np.all(box.min >= figure.bbox.min)
        assert np.all(box.max <= figure.bbox.max)
