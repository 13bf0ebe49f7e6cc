from PIL import Image

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
    assert repr(sheet) == '1 pictures: "><script>'
