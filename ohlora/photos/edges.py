"""Enlarge a small hair map over a large picture so that its edges follow the picture's own.

A guided filter (He et al. 2010; on a coarser grid, 2015) fits the map, window by window, as a linear function of the
picture's colours. By itself it blurs what the map knows; so the result is pulled back until its area means are the
small map again, and the picture only decides what the map cannot: where inside a map pixel the edge runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ohlora.base.recipe import check, setting
from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError
from ohlora.photos.face_alignment import Floats, Frame, cut_out

# Rows per strip of the full-size pass: with the strip's colours and five planes, 50 MB at 6,000 columns.
STRIP = 256
# Maps enlarged by less than this have nothing to gain.
SMALLEST_SCALE = 1.25


@dataclass(frozen=True)
class Refinement:
    """How a map is refined. What these values bring: docs/photographs.md.

    radius: of the windows, in pixels of the map. epsilon: variance of the picture (0..1 a channel) below which a
    window counts as flat. finest: the fit's grid has up to finest x finest cells per pixel of the map; finer detail
    comes from the picture. pulls: rounds of pulling back to the map.
    """

    radius: float = setting(1.5, above=0)
    epsilon: float = setting(1e-4, above=0)
    finest: int = setting(4, low=1)
    pulls: int = setting(3, low=0)

    def __post_init__(self) -> None:
        check(self, "Refinement.")


DEFAULT = Refinement()


def spread_map(
    image: Rgb, hair: Floats, window: Floats, frame: Frame, refinement: Refinement | None = DEFAULT
) -> tuple[Floats, tuple[int, int, int, int]]:
    """A hair map of what `frame` shows -> the hair map of the picture's pixels there.

    image: uint8 RGB [H,W,3]. hair: float32 [h,w] in [0,1]. window: float32 [h,w], what the result is multiplied with
    (1, falling to 0 towards borders that are not the picture's). refinement None: enlarged only.
    Returns float32 in [0,1] for the frame's region and that region: top, bottom, left, right.
    """
    if hair.shape != window.shape:
        raise InvalidInputError(f"hair map {hair.shape} and window {window.shape} must be of one size")
    rows, columns = hair.shape
    scale = math.sqrt(frame.width * frame.height / (rows * columns))
    if refinement is None or scale < SMALLEST_SCALE or not hair.any():
        planes = np.stack([np.zeros_like(hair)] * 3 + [_softened(hair, scale)], 2)
    else:
        cells = min(refinement.finest, math.ceil(scale))
        guide = cut_out(image, frame, columns * cells, rows * cells)
        planes = fit_colors(guide, hair, cells, refinement)
    window = cv2.resize(window, planes.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    region = frame.region(*image.shape[:2])
    return _apply(image, np.concatenate([planes, window[..., None]], 2), frame, region), region


def _softened(hair: Floats, scale: float) -> Floats:
    """A map that will be shrunk, blurred as far as sampling it then needs."""
    if scale > 0.75:
        return hair
    return np.asarray(cv2.GaussianBlur(hair, (0, 0), 0.4 / scale), np.float32)


def fit_colors(guide: Rgb, hair: Floats, cells: int, refinement: Refinement = DEFAULT) -> Floats:
    """Planes float32 [h cells, w cells, 4]: the refined map is planes[..., :3] . colour (0..1) + planes[..., 3].

    guide: uint8 RGB [h cells, w cells, 3], the picture at `cells` times the resolution of hair float32 [h,w].
    """
    rows, columns = hair.shape
    size = columns * cells, rows * cells
    if guide.shape[:2] != size[::-1]:
        raise InvalidInputError(
            f"a guide of {size[0]} x {size[1]} pixels is needed, got {guide.shape[1]} x {guide.shape[0]}"
        )
    # Planes one by one: filters and products run twice as fast on them as on interleaved channels.
    colors = [np.asarray(plane, np.float32) * np.float32(1 / 255) for plane in cv2.split(guide)]
    enlarged = np.clip(cv2.resize(hair, size, interpolation=cv2.INTER_CUBIC), 0, 1)
    slopes, offset = coefficients(colors, enlarged, max(1, round(refinement.radius * cells)), refinement.epsilon)
    shown = _sum_of_products(slopes, colors)
    fitted = np.clip(shown + offset, 0, 1)
    for _ in range(refinement.pulls):
        missing = hair - cv2.resize(fitted, (columns, rows), interpolation=cv2.INTER_AREA)
        fitted = np.clip(fitted + cv2.resize(missing, size, interpolation=cv2.INTER_CUBIC), 0, 1)
    # Colours finer than this grid keep acting through the slope; at the grid itself the sum is `fitted`.
    return np.stack([*slopes, fitted - shown], 2)


def coefficients(guide: Sequence[Floats], target: Floats, radius: int, epsilon: float) -> tuple[list[Floats], Floats]:
    """Windows of (2 radius + 1)^2: target ~ slope . guide + offset, averaged over the windows that hold a pixel.

    guide: three float32 [h,w] in [0,1], target float32 [h,w] -> slope (three [h,w]), offset [h,w].
    """
    mean, mean_target = [_box(plane, radius) for plane in guide], _box(target, radius)
    r, g, b = (_box(plane * target, radius) - m * mean_target for plane, m in zip(guide, mean, strict=True))
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    rr, rg, rb, gg, gb, bb = (
        _box(guide[i] * guide[j], radius) - mean[i] * mean[j] + np.float32(epsilon if i == j else 0) for i, j in pairs
    )
    # Inverse of the symmetric 3x3 matrix by cofactors, for all pixels at once.
    c_rr, c_rg, c_rb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    # Rounding may leave a nearly flat window a determinant of about 0, or below; epsilon^3 is what a flat one has.
    scale = 1 / np.maximum(rr * c_rr + rg * c_rg + rb * c_rb, np.float32(epsilon**3))
    slopes = [
        (c_rr * r + c_rg * g + c_rb * b) * scale,
        (c_rg * r + c_gg * g + c_gb * b) * scale,
        (c_rb * r + c_gb * g + c_bb * b) * scale,
    ]
    offset = mean_target - _sum_of_products(slopes, mean)
    return [_box(slope, radius) for slope in slopes], _box(offset, radius)


def _sum_of_products(one: Sequence[Floats], other: Sequence[Floats]) -> Floats:
    total = one[0] * other[0]
    for a, b in zip(one[1:], other[1:], strict=True):
        total += a * b
    return total


def _box(values: Floats, radius: int) -> Floats:
    side = 2 * radius + 1
    blurred = cv2.boxFilter(values, -1, (side, side), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.float32)


def _apply(image: Rgb, planes: Floats, frame: Frame, region: tuple[int, int, int, int]) -> Floats:
    """(slope . colour + offset, clipped) x window on the picture's pixels, strip by strip; 0 outside the frame."""
    top, bottom, left, right = region
    result = np.zeros((bottom - top, right - left), np.float32)
    if not result.size:
        return result
    rows, columns = planes.shape[:2]
    to_grid = cv2.invertAffineTransform(frame.matrix(columns, rows))
    # OpenCV warps up to four planes together; the borders of slope and offset are held, the window's are open.
    fit, window = np.ascontiguousarray(planes[..., :4]), np.ascontiguousarray(planes[..., 4])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for start in range(top, bottom, STRIP):
        end = min(start + STRIP, bottom)
        place = to_grid.copy()
        place[:, 2] = to_grid @ (left, start, 1)
        size = right - left, end - start
        fine = cv2.warpAffine(fit, place, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        weight = cv2.warpAffine(window, place, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        colors = image[start:end, left:right].astype(np.float32) * np.float32(1 / 255)
        fine = fine.reshape(*size[::-1], 4)
        part = np.clip(np.einsum("yxc,yxc->yx", fine[..., :3], colors) + fine[..., 3], 0, 1)
        result[start - top : end - top] = part * weight.reshape(size[::-1])
    return result
