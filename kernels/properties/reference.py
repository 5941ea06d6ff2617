"""The property scores in plain NumPy, one picture at a time. The definition the fast forms are held to.

A pixel's brightness is the mean of its three channels; here their sum is kept, so that everything stays an integer
until the last division, by 3 times the count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ohlora.kernels.choices import Algorithm
from ohlora.kernels.properties import classes as ids
from ohlora.kernels.properties.classes import SIZE

Map = NDArray[np.uint8]  # [224,224], or more of them
Sums = NDArray[np.int64]  # channel sums, 0..765
Mask = NDArray[np.bool_]
LAST = SIZE - 1
# Columns in which an eye is looked for (docs/spec/properties.md, sections 2 and 3); rows differ between v1 and v2.
EYE_COLUMNS = {ids.LEFT_EYE: slice(0, 168), ids.RIGHT_EYE: slice(56, 224)}
EYE_ROWS = {"v1": slice(56, 140), "v2": slice(56, 168)}


def score(
    parsing: Map, images: Map, algorithm: Algorithm, strict: bool, out: NDArray[np.float64], highest: Map
) -> None:
    """Fill `out` [N,C] and the highest class of each map."""
    for i, (classes, image) in enumerate(zip(parsing, images, strict=True)):
        highest[i] = classes.max()
        sums = image.astype(np.int64).sum(axis=2)
        if algorithm == "hairstyle":
            out[i] = hairstyle(classes, sums, strict)
        else:
            out[i] = (v1 if algorithm == "v1" else v2)(classes, sums)


def v1(classes: Map, sums: Sums) -> list[float]:
    """The seven scores of the first algorithm (docs/spec/properties.md, section 2)."""
    heights = [extent(eye_window(classes, eye, "v1")) for eye in (ids.LEFT_EYE, ids.RIGHT_EYE)]
    hair = classes == ids.HAIR
    lips = (classes == ids.UPPER_LIP) | (classes == ids.LOWER_LIP)
    return [
        (heights[0] + heights[1]) / 2,
        median(sums[hair]),
        hair_length_v1(hair),
        extent(lips) + extent(classes == ids.INNER_MOUTH),
        nose_slope(classes == ids.NOSE),
        *background(classes, sums),
    ]


def v2(classes: Map, sums: Sums) -> list[float]:
    """The seven scores of the second algorithm (docs/spec/properties.md, section 3)."""
    eyes = [eye_window(classes, eye, "v2") for eye in (ids.LEFT_EYE, ids.RIGHT_EYE)]
    hair = classes == ids.HAIR
    inner = np.count_nonzero(classes == ids.INNER_MOUTH)
    mouth = inner + np.count_nonzero((classes == ids.UPPER_LIP) | (classes == ids.LOWER_LIP))
    count, total, _ = trimmed(sums[hair], 0.1, 0.9)
    return [
        max(eye_opening(eye) for eye in eyes),
        total / (3 * count) if count else 127.5,
        hair_length_v2(hair),
        inner / mouth if mouth else 0.0,
        eye_line(*eyes),
        *background(classes, sums),
    ]


def eye_window(classes: Map, eye: int, algorithm: str) -> Mask:
    """Where the eye is, bool [224,224]; pixels outside its window do not count."""
    mask = np.zeros(classes.shape, dtype=bool)
    window = EYE_ROWS[algorithm], EYE_COLUMNS[eye]
    mask[window] = classes[window] == eye
    return mask


def extent(mask: Mask) -> int:
    """Last row minus first row, 0 where there is nothing."""
    rows = np.flatnonzero(mask.any(axis=1))
    return int(rows[-1] - rows[0]) if len(rows) else 0


def column_ends(mask: Mask) -> NDArray[np.int64]:
    """First and last row of each column that has pixels: int64 [K,3] of column, first, last."""
    columns = np.flatnonzero(mask.any(axis=0))
    first = mask.argmax(axis=0)[columns]
    last = LAST - mask[::-1].argmax(axis=0)[columns]
    return np.stack([columns, first, last], axis=1)


def eye_opening(mask: Mask) -> float:
    """Height of the tallest column, times the cosine of the eye's longest chord to the horizontal."""
    ends = column_ends(mask)
    if not len(ends):
        return 0.0
    height = int((ends[:, 2] - ends[:, 1]).max())
    # Only a column's ends can belong to the farthest pair; by column, then by row, as the tie rule counts them.
    x = np.repeat(ends[:, 0], 2)
    y = ends[:, 1:].ravel()
    dx, dy = x[:, None] - x, y[:, None] - y
    squared = np.tril(dx * dx + dy * dy)  # [i,j] with j < i
    # argmax takes the first of equal ones in row order: the smallest i, then the smallest j.
    i, j = np.unravel_index(int(squared.argmax()), squared.shape)
    if squared[i, j] == 0:
        return 0.0  # a single pixel, of height 0
    return float(height * (abs(int(dx[i, j])) / np.sqrt(float(squared[i, j]))))


def eye_line(left: Mask, right: Mask) -> float:
    """Slope from the middle of the left eye to that of the right one; NaN for a vertical line, 0 without two eyes."""
    (left_y, left_x), (right_y, right_x) = np.nonzero(left), np.nonzero(right)
    if not len(left_x) or not len(right_x):
        return 0.0
    rise = int(right_y.sum()) * len(left_y) - int(left_y.sum()) * len(right_y)
    run = int(right_x.sum()) * len(left_x) - int(left_x.sum()) * len(right_x)
    return rise / run if run else np.nan


def nose_slope(nose: Mask) -> float:
    """Minus the correlation of column and row over the nose; NaN where either does not vary."""
    y, x = (axis.astype(np.int64) for axis in np.nonzero(nose))
    n, sx, sy = len(x), int(x.sum()), int(y.sum())
    spread_x = n * int((x * x).sum()) - sx * sx
    spread_y = n * int((y * y).sum()) - sy * sy
    if spread_x == 0 or spread_y == 0:
        return np.nan
    together = sx * sy - n * int((x * y).sum())
    return float(np.clip(together / np.sqrt(float(spread_x) * float(spread_y)), -1, 1))


def median(sums: Sums) -> float:
    """Median brightness, NaN of nothing."""
    if not len(sums):
        return np.nan
    ordered = np.sort(sums)
    return int(ordered[(len(sums) - 1) // 2] + ordered[len(sums) // 2]) / 6


def trimmed(sums: Sums, low: float, high: float) -> tuple[int, int, int]:
    """Count, sum and sum of squares of the sorted values from int(low n) up to before int(high n)."""
    kept = np.sort(sums)[int(low * len(sums)) : int(high * len(sums))]
    return len(kept), int(kept.sum()), int((kept * kept).sum())


def background(classes: Map, sums: Sums) -> tuple[float, float]:
    """Mean and population deviation of the upper half's background, without its darkest and brightest twentieth."""
    upper = sums[: SIZE // 2][classes[: SIZE // 2] == ids.BACKGROUND]
    if len(upper) < 2:
        return (int(upper[0]) / 3, 0.0) if len(upper) else (192.0, 0.0)
    count, total, squares = trimmed(upper, 0.05, 0.95)
    return total / (3 * count), float(np.sqrt(float(count * squares - total * total))) / (3 * count)


def hair_length_v1(hair: Mask) -> float:
    """Last row with hair; at the bottom, half of its pixels there on top. NaN without hair."""
    rows = np.flatnonzero(hair.any(axis=1))
    if not len(rows):
        return np.nan
    bottom = int(rows[-1])
    return bottom + (np.count_nonzero(hair[LAST]) / 2 if bottom == LAST else 0.0)


def hair_length_v2(hair: Mask) -> float:
    """Rows with at least 20 hair pixels, from row 56 on; more for what leaves the picture at the bottom."""
    rows = np.count_nonzero(hair[56:], axis=1) >= 20
    length = float(np.count_nonzero(rows))
    if rows[-1]:
        for side in (hair[LAST, : SIZE // 2], hair[LAST, SIZE // 2 :]):
            length += max(int(side.sum()) - 10, 0) / 2
    return length


def hairstyle(classes: Map, sums: Sums, strict: bool) -> float:
    """Mean over positions of how much a block differs from the one below against those beside it; 0.45 without any.

    See docs/spec/cnn.md, section 8. Blocks are sums of 48 values here, so its 5 becomes 240.
    """
    y, x = (axis.ravel() for axis in np.mgrid[112:213, 8:213])
    hair = classes == ids.HAIR
    if strict:
        whole = blocks(hair.astype(np.int64)) == 16
        counts = whole[y, x] & whole[y + 8, x] & whole[y, x - 8] & whole[y, x + 8]
    else:
        # Two corners of each block; that of the left block is misplaced, and its column wraps around below 0.
        corners = [(0, 0), (8, 0), (0, -8), (0, 8), (3, 3), (11, 3), (3, -11), (3, 11)]
        counts = np.all([hair[y + dy, x + dx] for dy, dx in corners], axis=0)
    y, x = y[counts], x[counts]
    if not len(y):
        return 0.45
    block = blocks(sums)
    center = block[y, x]
    below = np.abs(center - block[y + 8, x])
    beside = np.maximum(np.abs(center - block[y, x - 8]), np.abs(center - block[y, x + 8]))
    ratios = below / (beside + 240)
    # One after the other, by row: np.sum adds in an order of its own, and the last bit depends on the order.
    return float(np.cumsum(ratios)[-1] / len(ratios))


def blocks(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """[224,224] -> [221,221]: sum of the 4x4 block that starts at each pixel."""
    integral = np.zeros((SIZE + 1, SIZE + 1), dtype=np.int64)
    integral[1:, 1:] = values.cumsum(0).cumsum(1)
    return integral[4:, 4:] - integral[:-4, 4:] - integral[4:, :-4] + integral[:-4, :-4]
