"""Class maps of faces from sources other than a published teacher, in the layout of `ohlora train parse`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ohlora.base.atomic import make_folder, remove_leftovers, write_bytes
from ohlora.base.types import Rgb
from ohlora.bundle import Bundle
from ohlora.io.images import encode_image, read_image
from ohlora.photos.segmentation import documented_classes, resize_area
from ohlora.render.renderer import Renderer
from ohlora.training.data.parsing_classes import HAIR, EyePoints
from ohlora.training.data.portrait_faces import png
from ohlora.training.data.portraits import parameters_from_seeds, render
from ohlora.training.teachers.parse import FACE, PARSING
from ohlora.training.teachers.protocol import SIZE, Labels

PAINTED_AT_ONCE = 64
HALF = 0.5


class BundleTeacher:
    """A bundle's own networks in place of a teacher. hair_only: its hair student, every other class is background."""

    def __init__(self, bundle: str | Path, hair_only: bool) -> None:
        opened = Bundle.open(bundle)
        part = opened.hair_part() if hair_only else opened.parsing_part()  # raises BundleError when it has none
        self.renderer, self.hair_only = Renderer(opened), hair_only
        self.name = f"{'hair student' if hair_only else 'parser'} of bundle {opened.name}"
        self.weights = opened.manifest.files[part.file].sha256

    def labels(self, images: Sequence[Rgb], eyes: Sequence[EyePoints | None] | None = None) -> Labels:
        """Square pictures uint8 [H,H,3] -> class maps and hair, 224x224."""
        hair = self.renderer.hair(list(images))
        if self.hair_only:
            return Labels(np.where(hair >= HALF, np.uint8(HAIR), np.uint8(0)), hair)
        return Labels(documented_classes(self.renderer.parse(list(images))), hair)


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
