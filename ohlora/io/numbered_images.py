"""Folders of numbered pictures: 000012.jpg is picture 12 in every table of the training pipeline."""

from __future__ import annotations

import re
from pathlib import Path

from ohlora.errors import InvalidInputError
from ohlora.io.images import list_images


def number_of(path: Path) -> int | None:
    """The digits at the end of a name without its suffix; None where there are none."""
    found = re.search(r"[0-9]+\Z", path.stem)
    return int(found[0]) if found else None


def numbered_images(folder: Path, prefix: str = "") -> dict[int, Path]:
    """Pictures directly in `folder`, by number, in rising order.

    The number is the trailing digits of a name without its suffix: 000012.jpg and face_000012.png are both 12. With a
    `prefix` only names of that prefix followed by digits count ("parsing_"), and all others are passed over.

    Raises InvalidInputError naming the files where two have one number or one has none, where no picture is left, and
    where there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInputError(f"there is no folder {folder}")
    found: dict[int, Path] = {}
    for path in list_images(folder):
        number = number_of(path)
        if prefix and (number is None or path.stem.rstrip("0123456789") != prefix):
            continue
        if number is None:
            raise InvalidInputError(
                f"{path} has no number at the end of its name: rename it (000012.jpg) or move it away"
            )
        if number in found:
            raise InvalidInputError(f"{found[number]} and {path} both have number {number}: keep one of them")
        found[number] = path
    if not found:
        raise InvalidInputError(f"no picture named {prefix}NNNNNN in {folder}")
    return dict(sorted(found.items()))
