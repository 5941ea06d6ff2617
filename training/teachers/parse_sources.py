"""Which number a picture gets in the documented layout, and whether that number's files are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ohlora.bundle.files import file_sha256
from ohlora.errors import ImageError, InvalidInputError

Row = Mapping[str, Any]  # of the index: "number", "source", "sha256" ...


@dataclass(frozen=True)
class Numbered:
    """A source and its number."""

    number: int
    source: Path


def own_number(source: Path) -> int | None:
    """The integer that a file's name without suffix is, e.g. 12 for 000012.jpg; None for any other name."""
    return int(source.stem) if source.stem.isascii() and source.stem.isdigit() else None


def number_sources(sources: Sequence[Path], known: Mapping[int, Row] | None = None) -> list[Numbered]:
    """Give every source its number; the result is in the order of numbers.

    A name that is a number keeps it. The others get the smallest free numbers, in the order of `sources`. known: index
    rows of earlier runs by number; a source that is among them keeps its number, and no other gets it.
    Raises InvalidInputError naming two sources of the same number, in this run or from an earlier one.
    """
    known = known or {}
    taken: dict[int, Path] = {}
    unnumbered: list[Path] = []
    for source in sources:
        number = own_number(source)
        if number is None:
            unnumbered.append(source)
        elif number in taken:
            raise InvalidInputError(
                f"{taken[number]} and {source} would both be number {number}: rename one or give each its own --out"
            )
        else:
            taken[number] = source
    earlier = {row["source"]: number for number, row in known.items()}
    free = (number for number in count() if number not in known and number not in taken)
    for source in unnumbered:
        number = earlier.get(str(source))
        if number is None or number in taken:
            number = next(free)
        taken[number] = source
    return [Numbered(number, taken[number]) for number in sorted(taken)]


def sha256_of(source: Path) -> str:
    """Raises ImageError for a file that cannot be read."""
    try:
        return file_sha256(source)
    except OSError as error:
        raise ImageError(f"cannot read {source}: {error.strerror or error}") from error


def unchanged(entry: Numbered, row: Row) -> bool:
    """Whether the row of this number was made from this picture as it is now.

    Raises InvalidInputError when it was made from another picture elsewhere: its files would be lost.
    """
    try:
        same = sha256_of(entry.source) == row["sha256"]
    except ImageError:
        same = False  # is reported when its turn comes
    if not same and row["source"] != str(entry.source):
        raise InvalidInputError(
            f"number {entry.number} belongs to {row['source']} in this folder, {entry.source} would replace it: choose "
            "another --out, or pass --restart to begin again"
        )
    return same
