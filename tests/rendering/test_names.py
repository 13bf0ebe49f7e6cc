import pytest

from nbfinetune.rendering.names import first_few, html_text, printable
from nbfinetune.rendering.tables import PictureSheet, Table

ODD = {
    "line break": ("a\nb", r"a\nb"),
    "carriage return": ("a\rb", r"a\rb"),
    "NUL": ("a\0b", r"a\x00b"),
    "terminal escape": ("\x1b[31mred", r"\x1b[31mred"),
    "C1 control": ("a\x9bb", r"a\x9bb"),
    "not UTF-8": ("caf\udce9", r"caf\udce9"),
    "line separator": ("a\u2028b", r"a\u2028b"),
}


@pytest.mark.parametrize(("name", "shown"), ODD.values(), ids=ODD)
def test_what_cannot_be_printed_is_written_out(name: str, shown: str) -> None:
    assert printable(name) == shown
    table = Table(name, ("class", "n"), [(name, "1"), (name,)], name)
    width = max(len(shown), len("class"))
    rows = [f"{'class':{width}}  n", f"{shown:{width}}  1", shown]
    assert repr(table).splitlines() == [shown, *rows, shown]
    assert table._repr_html_().count(html_text(name)) == 4
    repr(table).encode()
    table._repr_html_().encode()
    assert repr(PictureSheet([], [name])) == f"0 pictures: {shown}"


@pytest.mark.parametrize(
    "name", ["\u05e2\u05d1", "a \"b\" 'c'", "\u65e5\u672c", "e\u0301", "\U0001f408"]
)
def test_letters_of_any_script_and_quotes_stay(name: str) -> None:
    assert printable(name) == name


def test_a_few_names_are_shown_and_the_middle_of_long_ones_is_left_out() -> None:
    assert first_few(["a", "b\n"]) == r"a, b\n"
    assert first_few(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert first_few(["x" * 150 + "y" * 150]) == "x" * 120 + " ... " + "y" * 120
