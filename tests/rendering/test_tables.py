import json
from html.parser import HTMLParser

import pytest
from PIL import Image

from nbfinetune.rendering.names import bidi_isolated
from nbfinetune.rendering.tables import PictureSheet, Table

EVIL = '<script>alert("x")</script>'


def test_a_table_aligns_its_columns_as_text() -> None:
    table = Table("title", ("name", "n"), [("a", "1"), ("long name", "100"), ("stage",)], "end")
    assert repr(table).splitlines() == [
        "title",
        "name         n",
        "a            1",
        "long name  100",
        "stage",
        "end",
    ]


def test_a_table_escapes_everything_in_html() -> None:
    html = Table(EVIL, (EVIL, "n"), [(EVIL, "1"), (EVIL,)], EVIL)._repr_html_()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 5
    assert '<td colspan="2"' in html


def test_a_picture_sheet_escapes_its_captions_and_has_alternative_texts() -> None:
    sheet = PictureSheet([Image.new("RGB", (500, 300))], ['"><script>'])
    html = sheet._repr_html_()
    assert "<script" not in html
    assert 'alt="&quot;&gt;&lt;script&gt;"' in html
    assert repr(sheet) == '1 picture: "><script>'


def test_a_long_caption_moves_no_picture_of_a_sheet() -> None:
    """All boxes are of one size, whatever the shape of the picture and the length of its name."""
    pictures = [Image.new("RGB", size) for size in ((500, 300), (60, 60), (300, 500))]
    html = PictureSheet(pictures, ["a", "german shorthaired pointer " * 3, "c"])._repr_html_()
    assert html.count("width:128px;height:128px;display:flex") == 3
    assert "align-items:flex-start" in html
    assert "german shorthaired pointer " * 3 in html


NAMES = [
    "cost $5 to $9",
    r"\(x\) and \begin{y}",
    "two\nlines\r\tand\x00more\x85\u2028",
    "caf\udce9.png",
    "\u05e9\u05dc\u05d5\u05dd",
    "n" * 5000,
    "a'b\"c&d",
]


def text_of(html: str) -> str:
    """What a page shows: the text nodes, and where elements part them."""
    parts: list[str] = []

    class Parser(HTMLParser):
        def handle_data(self, data: str) -> None:
            parts.append(data)

    parser = Parser()
    parser.feed(html)
    return "|".join(parts)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
def test_any_name_is_shown_in_one_line_and_can_be_sent(name: str) -> None:
    table = Table(name, ("class", name), [(name, "1"), (name,)], name)
    sheet = PictureSheet([Image.new("RGB", (8, 8))], [name])
    for shown in (table, sheet):
        for text in (repr(shown), shown._repr_html_()):
            text.encode()
            assert text.isprintable() or "\n" in text or "\u2068" in text
    assert len(repr(table).splitlines()) == 5
    assert len(repr(sheet).splitlines()) == 1
    json.dumps(bidi_isolated(name), ensure_ascii=False).encode()


@pytest.mark.parametrize("name", NAMES[:2])
def test_no_part_of_a_name_is_a_formula(name: str) -> None:
    """Typesetters look for a pair of marks within one piece of text."""
    html = Table(name, (name, "n"), [(name, "1"), (name,)], name)._repr_html_()
    html += PictureSheet([Image.new("RGB", (8, 8))], [name])._repr_html_()
    pieces = text_of(html).split("|")
    assert "".join(pieces).count(name) == 6
    assert all(len(piece) == 1 for piece in pieces if "$" in piece or "\\" in piece)


def test_of_a_very_long_name_both_ends_are_shown() -> None:
    table = repr(Table("", ("class",), [("a" * 500 + "z" * 500,)]))
    assert table.splitlines()[1] == "a" * 60 + " ... " + "z" * 60


def test_columns_stay_aligned_beside_names_from_right_to_left() -> None:
    hebrew = "\u05e9\u05dc\u05d5\u05dd"
    lines = repr(Table("", ("class", "n"), [(hebrew, "1"), ("long name", "2")])).splitlines()
    assert lines[1] == f"\u2068{hebrew}\u2069{' ' * 5}  1"
