"""The ombre dye in Numba: one pass over the rows that change, no temporaries per pixel, GIL-free.

The dyed value depends on one byte and one table colour, so it is a 256-entry table per channel
(docs/spec/ombre.md, section 6).
Pictures run in parallel (`kernels.threads`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ohlora.kernels.ombre import Dyes, gradient_rows
from ohlora.kernels.threads import compiled

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


# No NaN comes in (checked), so comparisons need no special cases; the arithmetic stays as written.
@compiled(fastmath={"nnan", "nsz"})
def _cover(resized: Floats, coverage: Floats) -> tuple[int, int]:
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


@compiled()
def _table(color: Bytes) -> NDArray[np.float64]:
    """By byte: dyed value of each channel, and the byte itself (a look-up is cheaper than a conversion); [4,256]."""
    table = np.empty((4, 256))
    for value in range(256):
        table[3, value] = value
        for channel in range(3):
            tinted = value + ((0.35 * value + 0.25 * color[channel]) - 38.25)
            table[channel, value] = np.uint8(min(max(tinted, 0.0), 255.0))
    return table


@compiled()
def _copy(source: Bytes, target: Bytes) -> None:
    """Flat arrays. A loop becomes a block copy; Numba's slice assignment does not, and takes ten times as long."""
    for i in range(source.size):
        target[i] = source[i]


@compiled()
def _blend(image: Bytes, coverage: Floats, color: Bytes, first: int, full: int, nearest: bool, out: Bytes) -> None:
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


@compiled()
def _blend_unweighted(image: Bytes, coverage: Floats, color: Bytes, nearest: bool, out: Bytes) -> None:
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


def cover(resized: Floats, coverage: Floats) -> tuple[int, int]:
    """Resized map (0..255) -> B into `coverage`; returns first and last hair row, -1 and -1 for none."""
    top, bottom = _cover(resized, coverage)
    return int(top), int(bottom)


def dye(image: Bytes, coverage: Floats, rows: tuple[int, int], dyes: Dyes, i: int, out: Bytes) -> None:
    """`image` with dye i into `out`; coverage, rows: of `cover`."""
    top, bottom = rows
    if not out.flags.c_contiguous:
        made = np.empty(out.shape, np.uint8)
        dye(image, coverage, rows, dyes, i, made)
        out[...] = made
    elif bottom >= 0:
        first, full = gradient_rows(top, bottom, dyes.height[i], dyes.grad_height[i])
        _blend(np.ascontiguousarray(image), coverage, dyes.colors[i], first, full, dyes.nearest, out)
    elif dyes.unweighted:
        _blend_unweighted(image, coverage, dyes.colors[i], dyes.nearest, out)
    else:
        np.copyto(out, image)
