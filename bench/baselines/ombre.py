"""The documented ombre dye, written from docs/spec/ombre.md: NumPy in float64, nothing tuned."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.kernels.ombre import hue_table

HEIGHT, GRAD_HEIGHT = 0.7, 0.5


def documented_ombre(
    image: Rgb, hair: NDArray[np.float32], color: float, height: float = HEIGHT, grad_height: float = GRAD_HEIGHT
) -> Rgb:
    """One picture as docs/spec/ombre.md describes the original: float64 arrays, a Python maximum over each row."""
    rows_count, columns = image.shape[:2]
    mask = cv2.resize(hair * 255, (columns, rows_count), interpolation=cv2.INTER_CUBIC)
    mask = np.clip((mask - 191.25) * 4, 0, 255)
    rows = [y for y in range(rows_count) if max(mask[y]) >= 191.25]
    if not rows:
        return image
    top, bottom = rows[0], rows[-1]
    first = int(top + (bottom - top) * (1.0 - height))
    full = int(first + (bottom - first) * grad_height)
    weights = [0 if y < first else 1 if y >= full else (y - first) / (full - first) for y in range(rows_count)]
    mask = mask * np.array(weights)[:, None]
    tinted = image + ((0.35 * image + 0.25 * hue_table()[int(color * 360)]) - 38.25)
    dyed = np.clip(tinted, 0, 255).astype(np.uint8)
    alpha = np.repeat(mask[..., None], 3, 2) / 255
    return np.asarray((1 - alpha) * image + alpha * dyed).astype(np.uint8)
