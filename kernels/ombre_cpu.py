"""The ombre dye in Numba: one pass over the rows that change, no temporaries per pixel, GIL-free.

The dyed value depends on one byte and one table colour, so it is a 256-entry table per channel (spec section 6).
Pictures run in parallel (`kernels.threads`).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ohlora.kernels.ombre import Dyes, HairMask, gradient_rows
from ohlora.kernels.threads import for_each


# No NaN comes in (checked), so comparisons need no special cases; the arithmetic stays as written.
@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _cover(resized: NDArray[np.float32], coverage: NDArray[np.float32]) -> tuple[int, int]:
    rows, columns = resized.shape
    zero, full, threshold = np.float32(0.0), np.float32(255.0), np.float32(191.25)
    contrast = np.float32(4.0)
    top = -1
    bottom = -1
    for y in range(rows):
        source, target = resized[y], coverage[y]
        for x in range(columns):
            value = (source[x] - threshold) * contrast
            value = value if value > zero else zero
            target[x] = value if value < full else full
        hair = False
        for x in range(columns):  # a loop of its own, without a branch: both vectorise
            hair |= target[x] >= threshold
        if hair:
            bottom = y
            if top < 0:
                top = y
    return top, bottom


@njit(nogil=True, cache=True)
def _table(color: NDArray[np.uint8], table: NDArray[np.uint8]) -> None:
    for channel in range(3):
        tint = 0.25 * color[channel]
        for value in range(256):
            tinted = value + ((0.35 * value + tint) - 38.25)
            table[channel, value] = np.uint8(min(max(tinted, 0.0), 255.0))


@njit(nogil=True, cache=True)
def _blend(
    image: NDArray[np.uint8],
    coverage: NDArray[np.float32],
    color: NDArray[np.uint8],
    first: int,
    full: int,
    nearest: bool,
    out: NDArray[np.uint8],
) -> None:
    """Rows below `first` are blended, those above copied. first = -1: all rows, unweighted, in float32 alpha."""
    rows, columns = coverage.shape
    table = np.empty((3, 256), dtype=np.uint8)
    _table(color, table)
    start = max(first, 0)
    out[:start] = image[:start]
    for y in range(start, rows):
        weight = 1.0 if y >= full else (y - first) / (full - first)
        for x in range(columns):
            cover = coverage[y, x]
            if cover == np.float32(0.0):
                for channel in range(3):
                    out[y, x, channel] = image[y, x, channel]
                continue
            if first < 0:
                alpha = np.float64(np.float32(cover / np.float32(255.0)))
                rest = np.float64(np.float32(1.0) - np.float32(alpha))
            else:
                alpha = (cover * weight) / 255.0
                rest = 1.0 - alpha
            for channel in range(3):
                value = image[y, x, channel]
                if first < 0:
                    blended = np.float64(
                        np.float32(rest) * np.float32(value) + np.float32(alpha) * np.float32(table[channel, value])
                    )
                else:
                    blended = rest * value + alpha * table[channel, value]
                out[y, x, channel] = np.uint8(np.rint(blended)) if nearest else np.uint8(blended)


@njit(nogil=True, cache=True)
def _copy(image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    out[:] = image


def cover(resized: NDArray[np.float32], coverage: NDArray[np.float32]) -> tuple[int, int]:
    """Resized map (0..255) -> B into `coverage`; returns first and last hair row, -1 and -1 for none."""
    top, bottom = _cover(resized, coverage)
    return int(top), int(bottom)


def blend(
    images: NDArray[np.uint8],
    mask: HairMask,
    dyes: Dyes,
    out: NDArray[np.uint8],
    nearest: bool,
    unweighted: bool,
    threads: int | None,
) -> None:
    """Dye `images` into `out`, pictures in parallel."""

    def one(i: int) -> None:
        source = i if len(images) > 1 else 0
        bottom = int(mask.bottom[source])
        if bottom < 0 and not unweighted:
            _copy(images[source], out[i])
            return
        first, full = -1, -1
        if bottom >= 0:
            first, full = gradient_rows(int(mask.top[source]), bottom, dyes.height[i], dyes.grad_height[i])
        _blend(images[source], mask.coverage[source], dyes.colors[i], first, full, nearest, out[i])

    for_each(one, len(dyes), out.size // 3, threads)
