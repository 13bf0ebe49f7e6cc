"""Names: of files and classes, which may hold anything, in one line of text."""

import re
from collections.abc import Sequence

_NAMED = 5  # files or classes that one message names
_LONG = 240  # characters of one name in a message; a longer one is shortened in its middle
# Control characters and line breaks, which spoil a line, and lone surrogates (a file name that is
# not UTF-8 has them), which no file or terminal takes. Right-to-left letters stay as they are.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: object) -> str:
    r"""The text with \n, \x00 or \udce9 written out in place of what cannot be printed."""
    return _UNPRINTABLE.sub(lambda m: m[0].encode("unicode_escape").decode(), str(text))


def first_few(names: Sequence[object]) -> str:
    """The first few names, printable and not too long, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(shortened(name) for name in names[:_NAMED]) + more


def shortened(name: object) -> str:
    """A name as a message shows it: printable, and its middle left out if it is long."""
    text = printable(name)
    return text if len(text) <= _LONG else f"{text[: _LONG // 2]} ... {text[-_LONG // 3 :]}"
