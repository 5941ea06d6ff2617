"""OpenCV's resizes as taps: which source pixels an output pixel is made of, and how much of each.

Both axes of a resize are independent of each other, so a picture needs two of these tables.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ohlora.kernels.gpu.arrays import uploaded

TableT = TypeVar("TableT", bound=NDArray[Any])
A = -0.75  # the cubic's parameter


@cache
def cubic_taps(source: int, target: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Source pixels [target,4] and weights [target,4] of INTER_CUBIC: half-pixel centres, borders replicated."""
    place = (np.arange(target) + 0.5) * (source / target) - 0.5
    base = np.floor(place)
    weights = np.stack(_cubic(place - base), axis=1)
    pixels = np.clip(base[:, None] + np.arange(-1, 3), 0, source - 1).astype(np.int32)
    return _fixed(pixels), _fixed(weights)


@cache
def area_taps(source: int, target: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """First source pixel [target] and weights [target,K] of INTER_AREA: an output is the mean of what it covers.

    Raises ValueError where it would not shrink.
    """
    if not 1 <= target <= source:
        raise ValueError(f"an area resize shrinks: {source} -> {target}")
    scale = source / target
    starts = np.arange(target) * scale
    ends = np.minimum(starts + scale, source)
    first = np.floor(starts).astype(np.int32)
    covered = math.ceil(scale) + 1
    pixels = first[:, None] + np.arange(covered)
    weights = np.maximum(np.minimum(pixels + 1, ends[:, None]) - np.maximum(pixels, starts[:, None]), 0.0)
    return _fixed(first), _fixed(weights / weights.sum(axis=1, keepdims=True))


@cache
def cubic_on_device(source: int, target: int, device: int) -> tuple[Any, Any]:
    """`cubic_taps` of one axis, kept on the device."""
    pixels, weights = cubic_taps(source, target)
    return uploaded(np.array(pixels), device), uploaded(weights.astype(np.float32), device)


def _cubic(t: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Weights of the four taps at fractions t in [0, 1)."""

    def near(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return ((A + 2) * x - (A + 3)) * x * x + 1

    first = ((A * (t + 1) - 5 * A) * (t + 1) + 8 * A) * (t + 1) - 4 * A
    second, third = near(t), near(1 - t)
    return first, second, third, 1 - first - second - third


def _fixed(table: TableT) -> TableT:
    table.flags.writeable = False
    return table
