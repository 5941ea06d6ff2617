"""Geometric and grid steps of the zoo's picture pipeline, with OpenCV (docs/spec/segmentation.md, section 8).

Each takes picture and mask of one size and a generator, and moves both alike: the picture bilinearly, the mask by
nearest neighbour, so that masks of 0 and 255 stay so. What lies outside is mirrored. Ranges that the document does not
give are the defaults of the library it names (albumentations 0.5.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.training.hairzoo.config import DOCUMENTED_SIZE
from ohlora.training.hairzoo.pictures import Mask

Pair = tuple[Rgb, Mask]
Map = NDArray[np.float32]  # [H,W], where each pixel comes from
Matrix = NDArray[np.float64]  # [2,3]

ELASTIC_ALPHA, ELASTIC_SIGMA, ELASTIC_AFFINE = 120.0, 6.0, 3.6  # pixels of a 512-pixel picture
GRID_CELLS, GRID_LIMIT = 5, 0.3
OPTICAL_LIMIT, OPTICAL_SHIFT = 2.0, 0.5
SHIFT, SCALE, ROTATE = 0.0625, 0.1, 45.0  # share of the picture, share, degrees
HOLE_RATIO, HOLE_UNITS = 0.5, 10
BORDER = cv2.BORDER_REFLECT_101


def sample(image: Rgb, mask: Mask, map_x: Map, map_y: Map) -> Pair:
    """Picture and mask read at (map_x, map_y)."""
    return both(image, mask, lambda array, flags: cv2.remap(array, map_x, map_y, flags, borderMode=BORDER))


def warp(image: Rgb, mask: Mask, matrix: Matrix) -> Pair:
    """Picture and mask moved by an affine matrix (from old to new coordinates)."""
    size = (image.shape[1], image.shape[0])
    return both(image, mask, lambda array, flags: cv2.warpAffine(array, matrix, size, flags=flags, borderMode=BORDER))


def both(image: Rgb, mask: Mask, move: Callable[[Rgb, int], NDArray[Any]]) -> Pair:
    """`move(array, interpolation)` of the two."""
    moved, moved_mask = move(image, cv2.INTER_LINEAR), move(mask, cv2.INTER_NEAREST)
    return moved.astype(np.uint8, copy=False), moved_mask.astype(np.uint8, copy=False)


def elastic(image: Rgb, mask: Mask, rng: np.random.Generator) -> Pair:
    """A slight affine move, then a smooth random displacement of every pixel."""
    height, width = mask.shape
    # The same look at every size: lengths are given for the documented one.
    unit = min(height, width) / DOCUMENTED_SIZE
    centre, arm = np.array([width, height]) // 2, min(height, width) // 3
    corners = (centre + arm * np.array([[1, 1], [1, -1], [-1, -1]])).astype(np.float32)
    moved = corners + rng.uniform(-ELASTIC_AFFINE * unit, ELASTIC_AFFINE * unit, (3, 2)).astype(np.float32)
    image, mask = warp(image, mask, np.asarray(cv2.getAffineTransform(corners, moved), np.float64))
    noise = rng.uniform(-1, 1, (2, height, width)).astype(np.float32)
    dx, dy = (cv2.GaussianBlur(field, (0, 0), ELASTIC_SIGMA * unit, borderType=cv2.BORDER_REFLECT) for field in noise)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    # Squared: a smaller blur leaves the noise as much larger as the picture is smaller.
    reach = np.float32(ELASTIC_ALPHA * unit**2)
    return sample(image, mask, x + reach * dx, y + reach * dy)


def stretched(length: int, factors: NDArray[np.float64]) -> NDArray[np.float32]:
    """Coordinates [length] along one side whose cells are stretched by `factors` [GRID_CELLS + 1].

    The last factor is for what does not divide into GRID_CELLS cells; that rest ends at the picture's edge.
    """
    step = length // GRID_CELLS
    places, before = np.zeros(length, np.float32), 0.0
    for cell, factor in enumerate(factors):
        start, end = cell * step, min((cell + 1) * step, length)
        after = before + step * factor if (cell + 1) * step <= length else float(length)
        places[start:end] = np.linspace(before, after, end - start)
        before = after
    return places


def grid(image: Rgb, mask: Mask, rng: np.random.Generator) -> Pair:
    """Rows and columns of a 5 x 5 grid made wider or narrower by up to 30 %."""
    height, width = mask.shape
    x = stretched(width, 1 + rng.uniform(-GRID_LIMIT, GRID_LIMIT, GRID_CELLS + 1))
    y = stretched(height, 1 + rng.uniform(-GRID_LIMIT, GRID_LIMIT, GRID_CELLS + 1))
    map_x, map_y = np.meshgrid(x, y)
    return sample(image, mask, map_x, map_y)


def optical(image: Rgb, mask: Mask, rng: np.random.Generator) -> Pair:
    """The barrel or pincushion distortion of a lens, both radial coefficients up to 2."""
    height, width = mask.shape
    k = rng.uniform(-OPTICAL_LIMIT, OPTICAL_LIMIT)
    # Shifts below half a pixel, rounded to whole ones: none, as in the library.
    dx, dy = np.round(rng.uniform(-OPTICAL_SHIFT, OPTICAL_SHIFT, 2))
    camera = np.array([[width, 0, width / 2 + dx], [0, height, height / 2 + dy], [0, 0, 1]], np.float32)
    bends = np.array([k, k, 0, 0, 0], np.float32)
    maps = cv2.initUndistortRectifyMap(camera, bends, np.eye(3), camera, (width, height), cv2.CV_32FC1)
    return sample(image, mask, maps[0].astype(np.float32, copy=False), maps[1].astype(np.float32, copy=False))


def shift_scale_rotate(image: Rgb, mask: Mask, rng: np.random.Generator) -> Pair:
    """Up to 6.25 % of the picture to the side, 10 % larger or smaller, 45 degrees round."""
    height, width = mask.shape
    angle, zoom = rng.uniform(-ROTATE, ROTATE), 1 + rng.uniform(-SCALE, SCALE)
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom), np.float64)
    matrix[:, 2] += rng.uniform(-SHIFT, SHIFT, 2) * (width, height)
    return warp(image, mask, matrix)


def grid_dropout(image: Rgb, mask: Mask, rng: np.random.Generator) -> Pair:
    """Black squares in a regular grid; the mask stays: hair is to be found behind them. Uses no randomness."""
    height, width = mask.shape
    unit_x = max(2, width // HOLE_UNITS)
    unit_y = max(2, min(unit_x, height))
    rows, columns = (np.arange(n) % u < max(1, int(u * HOLE_RATIO)) for n, u in ((height, unit_y), (width, unit_x)))
    image = image.copy()
    image[np.ix_(rows, columns)] = 0
    return image, mask
