"""Lists of items as they stay in a notebook: words and thumbnails."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from nbfinetune import ClassificationInterpretation
from nbfinetune.interpretation.item_list import ItemsReport

from_predictions = ClassificationInterpretation.from_predictions


def images(html: str) -> list[dict[str, str]]:
    """The attributes of the pictures on a page."""
    found = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list) -> None:
            if tag == "img":
                found.append(dict(attrs))

    Parser().feed(html)
    return found


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{k}.png" for k in range(20)]
    for file in files:
        Image.new("RGB", (300, 200), "red").save(file)
    return files


def test_a_report_holds_the_first_twelve_pictures_and_says_what_they_are(files) -> None:
    interp = from_predictions([0] * 20, [1] * 20, ['<b>"cat"', "dog"], files)
    html = ItemsReport(interp, range(20), "all")._repr_html_()
    pictures = images(html)
    assert len(pictures) == 12
    assert all(p["src"].startswith("data:image/jpeg;base64,") for p in pictures)
    assert pictures[0]["alt"] == ('0.png: actual <b>"cat" (0.00), predicted dog (1.00), loss 27.63')
    assert "<b>&quot;" not in html
    assert "actual &lt;b&gt;&quot;cat&quot; 0.00<br>predicted dog 1.00<" in html
    assert html.index("all") < html.index("<img") < html.index("<table")
    assert "and 10 more" in html
    assert len(html) < 12 * 8_000


def test_a_picture_that_is_gone_leaves_its_reason(files) -> None:
    files[1].unlink()
    interp = from_predictions([0, 0], [1, 0], "ab", files[:2])
    html = ItemsReport(interp, [0, 1], "two")._repr_html_()
    assert len(images(html)) == 1
    assert "cannot be shown: no such file" in html
    assert "predicted b 1.00" in html


def test_an_empty_report_is_its_heading() -> None:
    report = ItemsReport(from_predictions([0], [0], "ab"), [], "nothing here; try <this>")
    assert repr(report) == "nothing here; try <this>"
    assert report._repr_html_() == "<div>nothing here; try &lt;this&gt;</div>"
