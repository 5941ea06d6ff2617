"""OpenCV's resizes as matrices, for graphs: out = A @ picture @ B.T is a resize wherever there is a matrix product.

Both axes of a resize are linear and independent of each other. On bytes the result is rounded half to even (half up
where both sides are halved exactly) and clipped. Equal to OpenCV 5 on random pictures but for sums that come out as a
half; OpenCV 4 rounds the cubic's coefficients for bytes to 1/2048, which moves some values by one level.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ohlora.kernels.gpu.resize_taps import area_taps, cubic_taps

Float32 = NDArray[np.float32]


def area_matrix(source: int, target: int) -> Float32:
    """[target, source]: each output is the mean of what it covers (INTER_AREA; target <= source)."""
    first, weights = area_taps(source, target)
    covered = first[:, None] + np.arange(weights.shape[1])
    return _matrix(source, np.minimum(covered, source - 1), weights)


def cubic_matrix(source: int, target: int) -> Float32:
    """[target, source]: cubic convolution, half-pixel centres, borders replicated (INTER_CUBIC)."""
    return _matrix(source, *cubic_taps(source, target))


def _matrix(source: int, pixels: NDArray[np.int32], weights: NDArray[np.float64]) -> Float32:
    matrix = np.zeros((len(pixels), source))
    np.add.at(matrix, (np.arange(len(pixels))[:, None], pixels), weights)  # clipped taps fall on one pixel
    return matrix.astype(np.float32)
