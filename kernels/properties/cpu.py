"""The property scores in Numba: one pass over map and picture, GIL-free, pictures in parallel (`kernels.threads`).

Why it is fast. A map is mostly runs of one class, so it is read eight pixels at a time: eight pixels of skin are one
comparison, and the picture is only touched under hair and the upper background. What a score needs of those is a
histogram of channel sums (766 bins), which gives medians and trimmed sums exactly without sorting. Of an eye only the
first and last pixel of each column can be one end of its longest chord, so some 50 points replace all pixel pairs.
The hairstyle has a module of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.kernels.choices import Algorithm
from ohlora.kernels.properties import classes as ids
from ohlora.kernels.properties.classes import SIZE
from ohlora.kernels.properties.cpu_hairstyle import hairstyles
from ohlora.kernels.threads import compiled

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float64]
LAST = SIZE - 1
HALF = SIZE // 2
WORDS = SIZE // 8
BINS = 3 * 255 + 1
HAIR_BINS, BACK_BINS, REST_BINS = 0, 1, 2
COUNTED = (ids.HAIR, ids.UPPER_LIP, ids.INNER_MOUTH, ids.LOWER_LIP)  # pixels of these are counted by row
HAIRS, UPPERS, INNERS, LOWERS = 0, 1, 2, 3
REPEAT = np.uint64(0x0101010101010101)  # times a class: a word of eight of it


def score(parsing: Bytes, images: Bytes, algorithm: Algorithm, strict: bool, out: Floats, highest: Bytes) -> None:
    """Fill `out` [N,C] and the highest class of each map. Where a class is unknown nothing is scored."""
    # Both views need contiguous memory; copies are made only where it is not.
    classes = np.ascontiguousarray(parsing)
    if classes.ctypes.data % 8:
        classes = classes.copy()
    pixels = np.ascontiguousarray(images).reshape(len(classes), SIZE, 3 * SIZE)
    highest[:] = _highest(classes)
    if highest.max() >= ids.CLASSES:
        return
    if algorithm == "hairstyle":
        hairstyles(classes, pixels, strict, out)
    else:
        _scores(classes, classes.view(np.uint64), pixels, algorithm == "v1", out)


@compiled()
def _highest(classes: Bytes) -> Bytes:
    found = np.zeros(len(classes), np.uint8)
    for i in range(len(classes)):
        highest = np.uint8(0)
        for value in classes[i].ravel():  # without a branch: vectorises
            highest = max(highest, value)
        found[i] = highest
    return found


@compiled()
def _scores(classes: Bytes, words: Words, pixels: Bytes, first: bool, out: Floats) -> None:
    # Channel sums under hair, upper background, anything else. Two of each in turn: a run of equal pixels would wait
    # for its own last increment.
    histograms = np.empty((3, 2, BINS), np.int32)
    counts = np.empty((SIZE, 8), np.uint8)  # pixels by row and counter; written eight at once, little-endian
    ends = np.empty((2, 2, SIZE), np.int32)  # per eye and column: first and last row
    eyes = np.empty((2, 5), np.int64)  # per eye: n, sum x, sum y in the rows of v2; first and last row in those of v1
    nose = np.empty(6, np.int64)  # n and sums of x, y, xx, yy, xy
    packed = counts.view(np.uint64).ravel()
    for i in range(len(classes)):
        histograms[:], nose[:] = 0, 0
        ends[:, 0], ends[:, 1] = SIZE, -1
        eyes[:, :3], eyes[:, 3], eyes[:, 4] = 0, SIZE, -1
        _gather(classes[i], words[i], pixels[i], first, histograms.ravel(), packed, ends, eyes, nose)
        hair = histograms[HAIR_BINS, 0] + histograms[HAIR_BINS, 1]
        back = histograms[BACK_BINS, 0] + histograms[BACK_BINS, 1]
        if first:
            _v1(hair, counts, eyes, nose, out[i])
        else:
            _v2(classes[i], hair, counts, ends, eyes, out[i])
        out[i, 5], out[i, 6] = _background(back)


@compiled()
def _gather(
    classes: Bytes,
    words: Words,
    pixels: Bytes,
    first: bool,
    histograms: Ints,
    packed: Words,
    ends: Ints,
    eyes: Longs,
    nose: Longs,
) -> None:
    bins = np.full(ids.CLASSES, REST_BINS * 2 * BINS, np.uint32)  # where a class's histogram starts
    bins[ids.HAIR], bins[ids.BACKGROUND] = HAIR_BINS * 2 * BINS, BACK_BINS * 2 * BINS
    one = np.zeros(ids.CLASSES, np.uint64)  # 1 in the byte of a class's counter; a row has less than 256 pixels
    for counter, counted in enumerate(COUNTED):
        one[counted] = np.uint64(1) << np.uint64(8 * counter)
    located = np.zeros(ids.CLASSES, np.uint8)  # classes whose positions matter
    located[ids.LEFT_EYE], located[ids.RIGHT_EYE], located[ids.NOSE] = 1, 1, first
    rest = np.uint32(REST_BINS * 2 * BINS)
    for y in range(SIZE):
        row, picture = classes[y], pixels[y]
        count = np.uint64(0)  # eight counters in a register
        if y == HALF:
            bins[ids.BACKGROUND] = rest
        w = 0
        while w < WORDS:
            at = row[8 * w]
            word = at * REPEAT
            end = w
            while end < WORDS and words[y, end] == word:
                end += 1
            if end > w:
                # A run of one class.
                found = located[at]
                count += one[at] * np.uint64(8 * (end - w))
                if bins[at] != rest:
                    _tally(picture[24 * w : 24 * end], histograms[bins[at] : bins[at] + 2 * BINS])
            else:
                # The border between two classes. Which side a pixel is on cannot be foretold, so nothing branches.
                end = w + 1
                found = located[at]
                for k in range(0, 8, 2):
                    at, after = row[8 * w + k], row[8 * w + k + 1]
                    count += one[at] + one[after]
                    found |= located[at] | located[after]
                    histograms[bins[at] + _sum(picture, 24 * w + 3 * k)] += 1
                    histograms[bins[after] + np.uint32(BINS) + _sum(picture, 24 * w + 3 * k + 3)] += 1
            if found and (first or 56 <= y <= 167):
                _locate(row, 8 * w, 8 * end, y, first, ends, eyes, nose)
            w = end
        packed[y] = count


@compiled()
def _sum(picture: Bytes, at: int) -> Any:
    return picture[at] + picture[at + 1] + picture[at + 2]


@compiled()
def _tally(picture: Bytes, histogram: Ints) -> None:
    for k in range(len(picture) // 6):
        histogram[_sum(picture, 6 * k)] += 1
        histogram[np.uint64(BINS) + _sum(picture, 6 * k + 3)] += 1


@compiled()
def _locate(row: Bytes, start: int, stop: int, y: int, first: bool, ends: Ints, eyes: Longs, nose: Longs) -> None:
    """Windows of eyes: rows 56..167 (v1: ..139), columns 0..167 left and 56..223 right
    (docs/spec/properties.md, sections 2 and 3).
    """
    for eye in range(2):
        count, across = 0, 0
        for x in range(max(start, 56 * eye), min(stop, 168 + 56 * eye)):
            if row[x] == ids.LEFT_EYE + eye:
                count += 1
                across += x
                ends[eye, 0, x] = min(ends[eye, 0, x], y)
                ends[eye, 1, x] = y  # rows come from above
        if count and 56 <= y <= 167:
            eyes[eye, 0] += count
            eyes[eye, 1] += across
            eyes[eye, 2] += count * y
            if y <= 139:
                eyes[eye, 3] = min(eyes[eye, 3], y)
                eyes[eye, 4] = y
    if first:
        for x in range(start, stop):
            if row[x] == ids.NOSE:
                nose[0] += 1
                nose[1] += x
                nose[2] += y
                nose[3] += x * x
                nose[4] += y * y
                nose[5] += x * y


@compiled()
def _v1(hair: Ints, counts: Bytes, eyes: Longs, nose: Longs, out: Floats) -> None:
    out[0] = (max(eyes[0, 4] - eyes[0, 3], 0) + max(eyes[1, 4] - eyes[1, 3], 0)) / 2
    total, bottom = hair.sum(), -1
    lips_first, lips_last, inner_first, inner_last = SIZE, -1, SIZE, -1
    for y in range(SIZE):
        if counts[y, HAIRS]:
            bottom = y
        if counts[y, UPPERS] or counts[y, LOWERS]:
            lips_first, lips_last = min(lips_first, y), y
        if counts[y, INNERS]:
            inner_first, inner_last = min(inner_first, y), y
    out[1] = (_ranked(hair, (total - 1) // 2) + _ranked(hair, total // 2)) / 6 if total else np.nan
    out[2] = bottom if total else np.nan
    if bottom == LAST:
        out[2] += counts[LAST, HAIRS] / 2
    out[3] = max(lips_last - lips_first, 0) + max(inner_last - inner_first, 0)
    n, sx, sy = nose[0], nose[1], nose[2]
    spread_x, spread_y = n * nose[3] - sx * sx, n * nose[4] - sy * sy
    out[4] = np.nan
    if spread_x and spread_y:
        slope = (sx * sy - n * nose[5]) / np.sqrt(float(spread_x) * float(spread_y))
        out[4] = min(max(slope, -1.0), 1.0)


@compiled()
def _v2(classes: Bytes, hair: Ints, counts: Bytes, ends: Ints, eyes: Longs, out: Floats) -> None:
    out[0] = max(_eye_opening(ends[0]), _eye_opening(ends[1]))
    total, inner, lips, long_rows = hair.sum(), 0, 0, 0
    for y in range(SIZE):
        inner += counts[y, INNERS]
        lips += counts[y, UPPERS] + counts[y, LOWERS]
        long_rows += y >= 56 and counts[y, HAIRS] >= 20
    kept, summed, _ = _trimmed(hair, int(0.1 * total), int(0.9 * total))
    out[1] = summed / (3 * kept) if kept else 127.5
    out[2] = long_rows
    if counts[LAST, HAIRS] >= 20:
        left = 0
        for x in range(HALF):
            left += classes[LAST, x] == ids.HAIR
        out[2] += max(left - 10, 0) / 2 + max(counts[LAST, HAIRS] - left - 10, 0) / 2
    out[3] = inner / (inner + lips) if inner + lips else 0.0
    out[4] = 0.0
    if eyes[0, 0] and eyes[1, 0]:
        rise = eyes[1, 2] * eyes[0, 0] - eyes[0, 2] * eyes[1, 0]
        run = eyes[1, 1] * eyes[0, 0] - eyes[0, 1] * eyes[1, 0]
        out[4] = rise / run if run else np.nan


@compiled()
def _background(back: Ints) -> tuple[float, float]:
    total = back.sum()
    if total == 0:
        return 192.0, 0.0
    if total == 1:
        return _ranked(back, 0) / 3, 0.0
    kept, summed, squares = _trimmed(back, int(0.05 * total), int(0.95 * total))
    return summed / (3 * kept), np.sqrt(float(kept * squares - summed * summed)) / (3 * kept)


@compiled()
def _ranked(histogram: Ints, rank: int) -> int:
    """The value at `rank`, counted from 0, of the sorted values."""
    below = 0
    for value in range(BINS):
        below += histogram[value]
        if below > rank:
            return value
    return -1


@compiled()
def _trimmed(histogram: Ints, low: int, high: int) -> tuple[int, int, int]:
    """Count, sum and sum of squares of the sorted values from rank low up to before rank high."""
    below, kept, summed, squares = 0, 0, 0, 0
    for value in range(BINS):
        above = below + histogram[value]
        taken = max(min(above, high) - max(below, low), 0)
        kept += taken
        summed += taken * value
        squares += taken * value * value
        below = above
    return kept, summed, squares


@compiled()
def _eye_opening(ends: Ints) -> float:
    """Height of the tallest column, times the cosine of the longest chord to the horizontal."""
    xs = np.empty(2 * SIZE, np.int32)
    ys = np.empty(2 * SIZE, np.int32)
    points, height = 0, 0
    for x in range(SIZE):
        if ends[1, x] >= 0:
            height = max(height, ends[1, x] - ends[0, x])
            for end in range(2):
                xs[points], ys[points] = x, ends[end, x]
                points += 1
    longest, across = np.int32(0), np.int32(0)
    for i in range(points):
        longest_here = np.int32(0)
        for j in range(i):  # a maximum and nothing else: vectorises
            dx, dy = np.int32(xs[i] - xs[j]), np.int32(ys[i] - ys[j])
            longest_here = max(longest_here, np.int32(dx * dx + dy * dy))
        # Strictly greater, so the smallest i and then the smallest j of equal chords: the documented one.
        if longest_here > longest:
            longest = longest_here
            for j in range(i):
                dx, dy = xs[i] - xs[j], ys[i] - ys[j]
                if np.int32(dx * dx + dy * dy) == longest:
                    across = np.int32(dx)
                    break
    return height * (across / np.sqrt(float(longest))) if longest else 0.0
