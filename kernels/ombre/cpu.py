"""The ombre dye in Numba: one pass over the rows that change, no temporaries per pixel, GIL-free.

The dyed value depends on one byte and one table colour, so it is a 256-entry table per channel
(docs/spec/ombre.md, section 6).
Pictures run in parallel (`kernels.threads`).
"""

from __future__ import annotations

import threading

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ohlora.kernels.ombre import Dyes, HairMask, gradient_rows, resized_map
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
def _table(color: NDArray[np.uint8]) -> NDArray[np.float64]:
    """By byte: dyed value of each channel, and the byte itself (a look-up is cheaper than a conversion); [4,256]."""
    table = np.empty((4, 256))
    for value in range(256):
        table[3, value] = value
        for channel in range(3):
            tinted = value + ((0.35 * value + 0.25 * color[channel]) - 38.25)
            table[channel, value] = np.uint8(min(max(tinted, 0.0), 255.0))
    return table


@njit(nogil=True, cache=True)
def _copy(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Flat arrays. A loop becomes a block copy; Numba's slice assignment does not, and takes ten times as long."""
    for i in range(source.size):
        target[i] = source[i]


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
    """Rows from `first` (>= 0) on are blended, those above copied. In float64, in the documented order."""
    rows, columns = coverage.shape
    table = _table(color)
    dyed_red, dyed_green, dyed_blue, plain = table[0], table[1], table[2], table[3]
    # Flat arrays and unsigned indices: no index can be negative, which the compiler need not look for then.
    source, target, covers = image.reshape(image.size), out.reshape(out.size), coverage.reshape(coverage.size)
    _copy(source, target)
    one, two = np.uint64(1), np.uint64(2)
    for y in range(first, rows):
        weight = 1.0 if y >= full else (y - first) / (full - first)
        for pixel in range(y * columns, (y + 1) * columns):
            cover = covers[np.uint64(pixel)]
            if cover == np.float32(0.0):
                continue
            alpha = (cover * weight) / 255.0
            rest = 1.0 - alpha
            at = np.uint64(3 * pixel)
            red, green, blue = source[at], source[at + one], source[at + two]
            r = rest * plain[red] + alpha * dyed_red[red]
            g = rest * plain[green] + alpha * dyed_green[green]
            b = rest * plain[blue] + alpha * dyed_blue[blue]
            if nearest:
                r, g, b = np.rint(r), np.rint(g), np.rint(b)
            # Through int32: the conversion that processors have.
            target[at] = np.uint8(np.int32(r))
            target[at + one] = np.uint8(np.int32(g))
            target[at + two] = np.uint8(np.int32(b))


@njit(nogil=True, cache=True)
def _blend_unweighted(
    image: NDArray[np.uint8],
    coverage: NDArray[np.float32],
    color: NDArray[np.uint8],
    nearest: bool,
    out: NDArray[np.uint8],
) -> None:
    """All rows, with alpha in float32, as the documented system does where it finds no hair row."""
    rows, columns = coverage.shape
    table = _table(color)
    for y in range(rows):
        for x in range(columns):
            alpha = np.float32(coverage[y, x] / np.float32(255.0))
            rest = np.float32(np.float32(1.0) - alpha)
            for channel in range(3):
                value = image[y, x, channel]
                blended = np.float64(rest * np.float32(value) + alpha * np.float32(table[channel, value]))
                out[y, x, channel] = np.uint8(np.rint(blended)) if nearest else np.uint8(blended)


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
        rows = int(mask.top[source]), int(mask.bottom[source])
        _dye(images[source], mask.coverage[source], rows, dyes, i, nearest, unweighted, out[i])

    for_each(one, len(dyes), out.size // 3, threads)


def apply(
    images: NDArray[np.uint8],
    hair: NDArray[np.float32],
    dyes: Dyes,
    out: NDArray[np.uint8],
    nearest: bool,
    unweighted: bool,
    threads: int | None,
) -> None:
    """Dye `images`, one dye each, without storing their masks: a mask stays in the cache of the core that made it."""
    local = threading.local()
    size = (images.shape[1], images.shape[2])

    def one(i: int) -> None:
        if not hasattr(local, "maps"):
            local.maps = tuple(np.empty(shape, np.float32) for shape in (hair.shape[1:], size, size))
        scaled, enlarged, coverage = local.maps
        # Not in place: the loop would not be vectorised.
        rows = cover(resized_map(hair[i], size, (scaled, enlarged)), coverage)
        _dye(images[i], coverage, rows, dyes, i, nearest, unweighted, out[i])

    for_each(one, len(dyes), out.size // 3, threads)


def _dye(
    image: NDArray[np.uint8],
    coverage: NDArray[np.float32],
    rows: tuple[int, int],
    dyes: Dyes,
    i: int,
    nearest: bool,
    unweighted: bool,
    out: NDArray[np.uint8],
) -> None:
    top, bottom = rows
    if not out.flags.c_contiguous:
        made = np.empty(out.shape, np.uint8)
        _dye(image, coverage, rows, dyes, i, nearest, unweighted, made)
        out[...] = made
    elif bottom >= 0:
        first, full = gradient_rows(top, bottom, dyes.height[i], dyes.grad_height[i])
        _blend(np.ascontiguousarray(image), coverage, dyes.colors[i], first, full, nearest, out)
    elif unweighted:
        _blend_unweighted(image, coverage, dyes.colors[i], nearest, out)
    else:
        np.copyto(out, image)
