# mypy: disallow-untyped-defs = False
"""What lies between a generator, a hair finder and the dye on a CUDA device: square pictures resized to the finder's
side, and what a metadata row says of a hair map.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from ohlora.kernels.gpu.arrays import Place, on, simulated, uploaded
from ohlora.kernels.gpu.resize_taps import area_taps, cubic_on_device

THREADS = 8 if simulated() else 256


def fit_pictures(images: Any, fitted: Any, place: Place) -> None:
    """images uint8 [N,R,R,3] -> fitted uint8 [N,S,S,3], as `ohlora.photos.segmentation.student_input` does:
    area when shrinking, cubic when enlarging. A level may differ from OpenCV's where a sum is nearly a half.
    """
    source, target = int(images.shape[1]), int(fitted.shape[1])
    count = len(images)
    with on(place):
        first, weights = _taps(source, target, place.device)
        halved = source == 2 * target
        fit[(-(-target * target // THREADS), count), THREADS, place.stream](images, first, weights, halved, fitted)


def hair_facts(hair: Any, rows: Any, facts: Any, place: Place) -> None:
    """hair float32 [N,h,w], rows of `ombre.cuda.find_rows` -> facts int32 [N,3]: pixels with H >= 0.5, last hair row or
    -1, pixels with H > 0.75, which a dye without hair rows would change.
    """
    with on(place):
        facts_of[len(hair), THREADS, place.stream](hair, rows, facts)


@cache
def _taps(source: int, target: int, device: int) -> tuple[Any, Any]:
    """Source pixels int32 [S,K] and weights float32 [S,K], on the device."""
    if source <= target:
        return cubic_on_device(source, target, device)
    first, weights = area_taps(source, target)
    pixels = np.minimum(first[:, None] + np.arange(weights.shape[1]), source - 1).astype(np.int32)
    return uploaded(pixels, device), uploaded(weights.astype(np.float32), device)


@cuda.jit
def fit(images, taps, weights, halved, fitted):
    side = fitted.shape[1]
    at, n = cuda.grid(1), cuda.blockIdx.y
    if at >= side * side:
        return
    y, x = at // side, at % side
    red, green, blue = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for i in range(taps.shape[1]):
        row, down = taps[y, i], weights[y, i]
        for j in range(taps.shape[1]):
            column, weight = taps[x, j], down * weights[x, j]
            red += weight * np.float32(images[n, row, column, 0])
            green += weight * np.float32(images[n, row, column, 1])
            blue += weight * np.float32(images[n, row, column, 2])
    fitted[n, y, x, 0] = _level(red, halved)
    fitted[n, y, x, 1] = _level(green, halved)
    fitted[n, y, x, 2] = _level(blue, halved)


@cuda.jit(device=True)
def _level(value, halved):
    """Half to even, but up where OpenCV halves a picture, which it does in integers."""
    low = np.int32(value)  # nothing below -1 matters
    rest = value - np.float32(low)
    half = np.float32(0.5)
    if rest > half or (rest == half and (halved or low % 2 == 1)):
        low += np.int32(1)
    return np.uint8(min(max(low, np.int32(0)), np.int32(255)))


@cuda.jit
def facts_of(hair, rows, facts):
    found = cuda.shared.array(3, np.int32)
    n, t = cuda.blockIdx.x, cuda.threadIdx.x
    if t == 0:
        found[0], found[1], found[2] = 0, -1, 0
    cuda.syncthreads()
    width = hair.shape[2]
    count, strong = np.int32(0), np.int32(0)
    for i in range(t, hair.shape[1] * width, THREADS):
        value = hair[n, i // width, i % width]
        if value >= np.float32(0.5):
            count += np.int32(1)
        if value > np.float32(0.75):
            strong += np.int32(1)
    if count > 0:
        cuda.atomic.add(found, 0, count)
    if strong > 0:
        cuda.atomic.add(found, 2, strong)
    for tile in range(t, rows.shape[1], THREADS):
        cuda.atomic.max(found, 1, rows[n, tile, 1])
    cuda.syncthreads()
    if t == 0:
        facts[n, 0], facts[n, 1], facts[n, 2] = found[0], found[1], found[2]
