"""Folders of numbered pictures: 000012.jpg is picture 12 in every table of the training pipeline."""

from __future__ import annotations

import re
from pathlib import Path

from ohlora.errors import InvalidInputError
from ohlora.io.images import list_images

CONTACT_SHEET = "contact_sheet.jpg"  # that a render job writes beside its images


def number_of(path: Path) -> int | None:
    """The digits at the end of a name without its suffix; None where there are none."""
    found = re.search(r"[0-9]+\Z", path.stem)
    return int(found[0]) if found else None


def numbered_images(folder: Path, prefix: str = "") -> dict[int, Path]:
    """Pictures directly in `folder`, by number, in rising order.

    The number is the trailing digits of a name without its suffix: 000012.jpg and face_000012.png are both 12. Where
    that gives one number to several pictures, it is all digits of the names (ftv2_000004.jpg is 2000004). Our own
    contact sheet does not count. With a `prefix` only names of that prefix followed by digits count ("parsing_"), and
    all others are passed over.

    Raises InvalidInputError naming the files where two have one number or one has none, where no picture is left, and
    where there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInputError(f"there is no folder {folder}")
    paths = [path for path in list_images(folder) if path.name != CONTACT_SHEET]
    numbers: list[tuple[int, Path]] = []
    for path in paths:
        number = number_of(path)
        if prefix and (number is None or path.stem.rstrip("0123456789") != prefix):
            continue
        if number is None:
            raise InvalidInputError(
                f"{path} has no number at the end of its name: rename it (000012.jpg) or move it away"
            )
        numbers.append((number, path))
    if not prefix and len({number for number, _ in numbers}) < len(numbers):
        numbers = [(int("".join(re.findall("[0-9]+", path.stem))), path) for _, path in numbers]
    found: dict[int, Path] = {}
    for number, path in numbers:
        if number in found:
            raise InvalidInputError(f"{found[number]} and {path} both have number {number}: keep one of them")
        if number >= 2**63:
            raise InvalidInputError(f"{path} has more digits than a number may have: rename it (000012.jpg)")
        found[number] = path
    if not found:
        raise InvalidInputError(f"no picture named {prefix}NNNNNN in {folder}")
    return dict(sorted(found.items()))
