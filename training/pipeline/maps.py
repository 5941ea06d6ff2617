"""Class maps of faces from sources other than a published teacher, in the layout of `ohlora train parse`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ohlora.base.atomic import make_folder, remove_leftovers, write_bytes
from ohlora.io.images import encode_image, read_image
from ohlora.photos.segmentation import resize_area
from ohlora.training.data.portrait_faces import png
from ohlora.training.data.portraits import parameters_from_seeds, render
from ohlora.training.teachers.parse import FACE, PARSING
from ohlora.training.teachers.protocol import SIZE

PAINTED_AT_ONCE = 64


def portrait_maps(
    images: Mapping[int, Path], first_seed: int, out: Path, advance: Callable[[int], None] = lambda count: None
) -> int:
    """The exact class map of the portrait of the same seed, for every picture; returns how many are there.

    Writes face_NNNNNN.png (the picture at 224) and parsing_NNNNNN.png; what is there already stays.
    """
    remove_leftovers(make_folder(out))
    missing = [n for n in images if not (out / PARSING.format(n)).is_file()]
    advance(len(images) - len(missing))
    for start in range(0, len(missing), PAINTED_AT_ONCE):
        part = missing[start : start + PAINTED_AT_ONCE]
        maps = render(parameters_from_seeds([first_seed + number for number in part]), SIZE).parsing
        for number, parsing in zip(part, maps, strict=True):
            face = resize_area(read_image(images[number]), (SIZE, SIZE))
            write_bytes(out / FACE.format(number), encode_image(face, "png"))
            write_bytes(out / PARSING.format(number), png(parsing))  # last: where it is, the face is too
        advance(len(part))
    return len(images)
