"""Names: of files and classes, which may hold anything, in one line of text."""

import re
from collections.abc import Sequence
from html import escape

_NAMED = 5  # files or classes that one message names
_LONG = 240  # characters of one name in a message; a longer one is shortened in its middle
# Control characters and line breaks, which spoil a line, and lone surrogates (a file name that is
# not UTF-8 has them), which no file or terminal takes. Right-to-left letters stay as they are.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# Hebrew, Arabic and their neighbours, and the marks that turn text around.
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]"
)
# ASCII punctuation that Markdown, GitHub's too, may take for more than a character: all of it may
# stand behind a backslash. Within a word "_" and "-" are safe.
_MARKDOWN = re.compile(r"(?<![^\W_])[_-]|[_-](?![^\W_])|[!-,./:-@\[-^`{-~]")
_MATHS = re.compile(r"[$\\]")  # JupyterLab typesets $...$, \(...\) and \begin{...} in HTML


def printable(text: object) -> str:
    r"""The text with \n, \x00 or \udce9 written out in place of what cannot be printed."""
    return _UNPRINTABLE.sub(lambda m: m[0].encode("unicode_escape").decode(), str(text))


def first_few(names: Sequence[object]) -> str:
    """The first few names, printable and not too long, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(shortened(name) for name in names[:_NAMED]) + more


def shortened(name: object, longest: int = _LONG) -> str:
    """A name as a message shows it: printable, and its middle left out if it is long."""
    text, half = printable(name), longest // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


def shown(value: object) -> str:
    """A value that a user gave, for a message."""
    return shortened(" ".join(repr(value).split()))


def html_text(text: str) -> str:
    """A text as HTML that shows it as it is: no tags, and no formulas."""
    return _MATHS.sub(r"<span>\g<0></span>", escape(printable(text)))


def markdown_text(text: str) -> str:
    """A text as Markdown that shows it as it is: no links, tags, tables or headings."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(text).strip())


def bidi_isolated(name: str) -> str:
    """A name that leaves the numbers around it in their order, whatever way it is written."""
    name = printable(name)
    return f"\u2068{name}\u2069" if _RIGHT_TO_LEFT.search(name) else name
