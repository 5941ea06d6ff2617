"""The property scores on a CUDA device: one launch for the seven scores, two small ones for the hairstyle.

Nothing comes back to the host: a map with an unknown class gives NaN in its row, where the host's forms raise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ohlora.kernels.choices import Algorithm
from ohlora.kernels.gpu.arrays import Place, address, device_array, new_array, on, parts, place_of
from ohlora.kernels.properties import ALGORITHMS, SIZE
from ohlora.kernels.properties.cuda_hairstyle_kernels import BANDS, hairstyle_bands, hairstyle_means
from ohlora.kernels.properties.cuda_hairstyle_kernels import THREADS as BAND_THREADS
from ohlora.kernels.properties.cuda_kernels import THREADS, scores

MOST_PICTURES = 2**20  # of one launch; far below the grid's limit, and small enough for 32-bit counts of words


def score(
    parsing: Any,
    images: Any,
    algorithm: Algorithm,
    strict: bool,
    out: Any = None,
    stream: Any = None,
    scratch: tuple[Any, Any] | None = None,
) -> Any:
    """`properties.score` for maps uint8 [N,224,224] and pictures uint8 [N,224,224,3] on one device.

    Returns `out`, float64 [N,C] on that device, made where None. scratch: of `hairstyle_scratch`, for launches that
    must not allocate.
    """
    place = place_of({"parsing": parsing, "images": images, "out": out}, stream)
    with on(place):
        classes = device_array("parsing", parsing, np.uint8, (None, SIZE, SIZE))
        pixels = device_array("images", images, np.uint8, (len(classes), SIZE, SIZE, 3))
        shape = (len(classes), len(ALGORITHMS[algorithm]))
        if out is None:
            out = new_array(parsing, shape, np.float64, place)
        target = device_array("out", out, np.float64, shape)
        words = _words("parsing", classes), _words("images", pixels)
        if algorithm == "hairstyle":
            scratch = scratch or hairstyle_scratch(parsing, len(classes), place)
            sums = device_array("sums", scratch[0], np.float64, (len(classes), BANDS))
            counts = device_array("counts", scratch[1], np.int32, (len(classes), BANDS))
        for part in parts(len(classes), MOST_PICTURES):
            count = part.stop - part.start
            chosen = words[0][part], words[1][part]
            if algorithm != "hairstyle":
                scores[count, THREADS, place.stream](*chosen, algorithm == "v1", target[part])
            else:
                halves = sums[part], counts[part]
                hairstyle_bands[(count, BANDS), BAND_THREADS, place.stream](*chosen, strict, *halves)
                hairstyle_means[-(-count // BAND_THREADS), BAND_THREADS, place.stream](*halves, target[part])
    return out


def hairstyle_scratch(like: Any, count: int, place: Place) -> tuple[Any, Any]:
    """Memory for the sums and counts of `count` pictures, of `like`'s library."""
    return new_array(like, (count, BANDS), np.float64, place), new_array(like, (count, BANDS), np.int32, place)


def _words(name: str, array: Any) -> Any:
    """uint8 [N,224,...] -> uint32 [N,224,W]: rows are a whole number of words."""
    if address(array) % 4:
        raise ValueError(f"{name} does not begin at a multiple of 4 bytes: copy it first")
    count, height = (int(length) for length in array.shape[:2])
    row = math.prod(int(length) for length in array.shape[2:])
    return array.reshape(count * height * row).view(np.uint32).reshape(count, height, row // 4)
