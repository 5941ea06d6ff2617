"""Words of messages: lists of alternatives, and the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def one_of(names: Iterable[object]) -> str:
    """ "a", "a or b", "a, b or c"."""
    *others, last = map(str, names)
    return f"{', '.join(others)} or {last}" if others else last


def near(name: str, known: Iterable[str], most: int = 1) -> str:
    """ ", did you mean 'x'?", with at most so many, or nothing where no known name is like this one."""
    found = difflib.get_close_matches(name, list(known), most)
    return f", did you mean {one_of(map(repr, found))}?" if found else ""
