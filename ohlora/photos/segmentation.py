"""Find hair and parse faces with the students' engines, in pictures of any size and shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.engines import Engine
from ohlora.errors import ImageError

SIZE = 224
# A strip of 1 x 100 shows no portrait; below this the shorter side would vanish at 224.
MAX_ASPECT = 8.0
# Classes of the largest parser that has the documented ones first, and what they are there.
CLASSES = (
    "background", "skin", "left_eyebrow", "right_eyebrow", "left_eye", "right_eye", "nose", "upper_lip",
    "inner_mouth", "lower_lip", "hair", "glasses", "hat",
)  # fmt: skip
_DOCUMENTED = np.array([*range(11), CLASSES.index("skin"), CLASSES.index("background")], np.uint8)


def resize_area(image: Rgb, size: tuple[int, int]) -> Rgb:
    """To (height, width): antialiased when shrinking, cubic when enlarging."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] > height or image.shape[1] > width
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.asarray(resized, np.uint8)


def image_side(engine: Engine) -> int:
    """Side of the square images that a student's engine is fed: 224, or 256 in the documented way."""
    return next(tensor.row_shape[0] for tensor in engine.spec.inputs if tensor.name == "image")


def fit(height: int, width: int, side: int = SIZE) -> tuple[int, int]:
    """Size of a picture inside a student's square, aspect kept. Raises ImageError for extreme shapes."""
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(f"{width}x{height} is too narrow for a portrait: crop it to at most {MAX_ASPECT:g} to 1")
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def student_input(image: Rgb, side: int = SIZE) -> Rgb:
    """uint8 RGB [H,W,3] -> [side,side,3]: aspect kept, centred, the rest filled with the mirrored picture.

    Mirroring is what the student saw beyond the border while it was trained.
    """
    height, width = fit(image.shape[0], image.shape[1], side)
    small = resize_area(image, (height, width))
    top, left = (side - height) // 2, (side - width) // 2
    if (height, width) == (side, side):
        return np.ascontiguousarray(small)
    rows = mirrored(height, top, side)
    columns = mirrored(width, left, side)
    return np.ascontiguousarray(small[rows][:, columns])


def mirrored(length: int, before: int, side: int = SIZE) -> NDArray[np.int64]:
    """For each of the `side` positions, the source index of a reflected line of `length` starting at `before`."""
    if length == 1:
        return np.zeros(side, dtype=np.int64)
    period = 2 * (length - 1)
    position = (np.arange(side) - before) % period
    return np.where(position < length, position, period - position)


def find_hair(engine: Engine, images: Sequence[Rgb]) -> list[NDArray[np.float32]]:
    """Hair probability of each picture, float32 [h,w] with max(h,w) = 224 and the picture's aspect."""
    return student_maps(engine, images, "hair", image_side(engine))


def parse_faces(engine: Engine, images: Sequence[Rgb]) -> list[NDArray[np.uint8]]:
    """Class ids of each picture, uint8 [h,w] with max(h,w) = 224 and the picture's aspect.

    engine: image uint8 [N,224,224,3] -> parsing uint8 [N,224,224] (`Bundle.parsing_engine`). Raises ImageError for
    extremely narrow pictures.
    """
    return student_maps(engine, images, "parsing", image_side(engine))


def documented_classes(parsing: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class ids of a parser that also knows glasses (11) and hats (12) as the documented 0..10 that scores count:
    glasses lie on skin, a hat is background.
    """
    return _DOCUMENTED[parsing]


def student_maps(
    run: Callable[..., Mapping[str, NDArray[Any]]], images: Sequence[Rgb], output: str, side: int = SIZE
) -> list[NDArray[Any]]:
    """A student's output of each picture, [h,w] with max(h,w) = 224 and the picture's aspect.

    run: takes image uint8 [N,side,side,3] and gives maps [N,224,224] by name.
    """
    if not images:
        return []
    maps = run(image=np.stack([student_input(image, side) for image in images]))[output]
    result = []
    for image, full in zip(images, maps, strict=True):
        height, width = fit(*image.shape[:2])
        top, left = (SIZE - height) // 2, (SIZE - width) // 2
        result.append(np.ascontiguousarray(full[top : top + height, left : left + width]))
    return result
