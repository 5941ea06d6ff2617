"""OpenCV's resizes as matrices, for graphs: out = A @ picture @ B.T is a resize wherever there is a matrix product.

Both axes of a resize are linear and independent of each other. On bytes the result is rounded half to even (half up
where both sides are halved exactly) and clipped. Equal to OpenCV 5 on random pictures but for sums that come out as a
half; OpenCV 4 rounds the cubic's coefficients for bytes to 1/2048, which moves some values by one level.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

A = -0.75  # the cubic's parameter


def area_matrix(source: int, target: int) -> Float32:
    """[target, source]: each output is the mean of what it covers (INTER_AREA; target <= source)."""
    if not 1 <= target <= source:
        raise ValueError(f"an area resize shrinks: {source} -> {target}")
    scale = source / target
    matrix = np.zeros((target, source))
    for row in range(target):
        start, end = row * scale, min((row + 1) * scale, source)
        for column in range(math.floor(start), min(math.ceil(end), source)):
            matrix[row, column] = min(column + 1, end) - max(column, start)
        matrix[row] /= matrix[row].sum()
    return matrix.astype(np.float32)


def cubic_matrix(source: int, target: int) -> Float32:
    """[target, source]: cubic convolution, half-pixel centres, borders replicated (INTER_CUBIC)."""
    matrix = np.zeros((target, source))
    for row in range(target):
        place = (row + 0.5) * (source / target) - 0.5
        base = math.floor(place)
        for tap, weight in enumerate(_cubic(place - base)):
            matrix[row, min(max(base - 1 + tap, 0), source - 1)] += weight
    return matrix.astype(np.float32)


def _cubic(t: float) -> tuple[float, float, float, float]:
    """Weights of the four taps at fraction t in [0, 1)."""

    def near(x: float) -> float:
        return ((A + 2) * x - (A + 3)) * x * x + 1

    first = ((A * (t + 1) - 5 * A) * (t + 1) + 8 * A) * (t + 1) - 4 * A
    second, third = near(t), near(1 - t)
    return first, second, third, 1 - first - second - third


def student_matrix(source: int, target: int) -> Float32:
    """[target, source]: how the runtime brings one side of a square portrait to the student's (`ohlora.hair`)."""
    if source == target:
        return np.eye(target, dtype=np.float32)
    return area_matrix(source, target) if source > target else cubic_matrix(source, target)
