"""Many pictures on one sheet, to look a job over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError

MAX_CELLS = 2_500
MAX_PIXELS = 100_000_000
_PAPER, _INK = 255, (40, 40, 40)


def contact_sheet(
    images: Iterable[Rgb],
    *,
    columns: int | None = None,
    cell: int = 128,
    gap: int = 4,
    captions: Sequence[str] | None = None,
) -> Rgb:
    """Arrange pictures row by row on white.

    Returns uint8 RGB [rows * (cell + strip + gap) + gap, columns * (cell + gap) + gap, 3]; strip is 0
    uncaptioned.

    images: uint8 RGB [H, W, 3] of any sizes; taken one at a time and kept as thumbnails only. Each is scaled
    to fit a square of `cell` pixels, its aspect kept. columns: None makes the sheet about as wide as high.
    captions: one per picture, in a strip under each, cut to the width of a cell.

    Raises InvalidInputError for no picture, more than MAX_CELLS pictures, a sheet of more than MAX_PIXELS pixels,
    options out of range, another number of captions than pictures, and arrays of another kind.
    """
    _check_range("cell", cell, 8, 4096)
    _check_range("gap", gap, 0, 1024)
    if columns is not None:
        _check_range("columns", columns, 1, MAX_CELLS)
    if captions is not None and isinstance(captions, str):
        raise InvalidInputError("captions must be a sequence of texts, one per picture, got a single text")
    strip = _strip_height(cell) if captions is not None else 0

    thumbnails: list[Rgb] = []
    for image in images:
        if len(thumbnails) == MAX_CELLS:
            raise InvalidInputError(f"a contact sheet holds at most {MAX_CELLS} pictures: make several sheets")
        if (len(thumbnails) + 1) * (cell + gap) * (cell + strip + gap) > MAX_PIXELS:
            raise InvalidInputError(
                f"a contact sheet of more than {len(thumbnails)} cells of {cell} pixels exceeds "
                f"{MAX_PIXELS:,} pixels: choose a smaller cell or make several sheets"
            )
        thumbnails.append(_fit(image, cell, len(thumbnails)))
    if not thumbnails:
        raise InvalidInputError("a contact sheet needs at least one picture")
    if captions is not None and len(captions) != len(thumbnails):
        raise InvalidInputError(f"{len(captions)} captions for {len(thumbnails)} pictures: give one each")

    columns = min(columns or math.ceil(math.sqrt(len(thumbnails))), len(thumbnails))
    rows = math.ceil(len(thumbnails) / columns)
    sheet = np.full((rows * (cell + strip + gap) + gap, columns * (cell + gap) + gap, 3), _PAPER, np.uint8)
    for index, thumbnail in enumerate(thumbnails):
        row, column = divmod(index, columns)
        height, width = thumbnail.shape[:2]
        top = gap + row * (cell + strip + gap) + (cell - height) // 2
        left = gap + column * (cell + gap) + (cell - width) // 2
        sheet[top : top + height, left : left + width] = thumbnail
    if captions is None:
        return sheet
    return _write_captions(sheet, captions, columns, cell, strip, gap)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise InvalidInputError(f"{name} must be a whole number in [{low}, {high}], got {value!r}")


def _fit(image: Rgb, cell: int, index: int) -> Rgb:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InvalidInputError(f"picture {index} is {image.dtype} {list(image.shape)}: uint8 [H, W, 3] is needed")
    height, width = image.shape[:2]
    scale = cell / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return image.copy()  # a caller may reuse its buffer for the next picture
    # Area averaging keeps thumbnails free of aliasing; it is no good for growing.
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=method), np.uint8)


def _font_size(cell: int) -> int:
    return min(max(cell // 10, 9), 24)


def _strip_height(cell: int) -> int:
    return math.ceil(_font_size(cell) * 1.5)


def _write_captions(sheet: Rgb, captions: Sequence[str], columns: int, cell: int, strip: int, gap: int) -> Rgb:
    canvas = Image.fromarray(sheet)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_font_size(cell))
    for index, caption in enumerate(captions):
        text = _shorten(" ".join(caption.split()), lambda part: draw.textlength(part, font=font) <= cell)
        row, column = divmod(index, columns)
        middle = (gap + column * (cell + gap) + cell / 2, gap + row * (cell + strip + gap) + cell + strip / 2)
        draw.text(middle, text, fill=_INK, font=font, anchor="mm")
    return np.array(canvas)


def _shorten(text: str, fits: Callable[[str], bool]) -> str:
    if fits(text):
        return text
    low, high = 0, len(text)  # text[:low] + '...' fits, text[:high] + '...' does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(text[:middle] + "...") else (low, middle)
    return text[:low] + "..." if low else ""
