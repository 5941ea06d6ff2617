"""Words of messages: lists of names, and the one that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def one_of(names: Iterable[object]) -> str:
    """ "a", "a or b", "a, b or c"."""
    *others, last = map(str, names)
    return f"{', '.join(others)} or {last}" if others else last


def first_of(names: Sequence[object], shown: int = 5) -> str:
    """The first few, with dots where there are more."""
    return ", ".join(map(str, names[:shown])) + (" ..." if len(names) > shown else "")


def near(name: str, known: Iterable[str], most: int = 1) -> str:
    """ ", did you mean 'x'?", with at most so many, or nothing where no known name is like this one."""
    found = difflib.get_close_matches(name, list(known), most)
    return f", did you mean {one_of(map(repr, found))}?" if found else ""


def escape(text: str) -> str:
    """Text of strangers for a terminal: control characters, and those that turn its direction, as \\xNN or \\uNNNN.

    Line breaks stay: a message may have several lines.
    """
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object, limit: int = 80) -> str:
    """A stranger's name or value for a message: on one line, escaped, and cut in its middle to `limit` characters."""
    text = escape(str(value)).replace("\n", "\\n")
    head = (limit - 3) * 2 // 3
    return text if len(text) <= limit else f"{text[:head]}...{text[len(text) - (limit - 3 - head) :]}"
