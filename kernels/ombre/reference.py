"""The ombre dye in plain NumPy, step by step as docs/spec/ombre.md has it. The definition
the fast forms are held to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ohlora.kernels.ombre import CONTRAST, HAIR_ROW, THRESHOLD, Dyes, gradient_rows

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def cover(resized: Floats, coverage: Floats) -> tuple[int, int]:
    """Resized map (0..255) -> B into `coverage`; returns first and last hair row, -1 and -1 for none."""
    coverage[:] = np.clip((resized - THRESHOLD) * CONTRAST, 0, 255)
    rows = np.flatnonzero(coverage.max(axis=1) >= HAIR_ROW)
    return (int(rows[0]), int(rows[-1])) if len(rows) else (-1, -1)


def dye(image: Bytes, coverage: Floats, rows: tuple[int, int], dyes: Dyes, i: int, out: Bytes) -> None:
    """`image` with dye i into `out`; coverage, rows: of `cover`."""
    result = blend_float(image, coverage, rows, dyes, i)
    out[:] = np.rint(result).astype(np.uint8) if dyes.nearest else result.astype(np.uint8)


def blend_float(image: Bytes, coverage: Floats, rows: tuple[int, int], dyes: Dyes, i: int) -> NDArray[np.float64]:
    """As `dye`, float64 [H,W,3] in 0..255, not rounded (docs/spec/ombre.md, sections 4 and 5)."""
    top, bottom = rows
    weighted: NDArray[np.floating] = coverage
    if bottom >= 0:
        first, full = gradient_rows(top, bottom, dyes.height[i], dyes.grad_height[i])
        weighted = coverage * row_weights(len(coverage), first, full)[:, None]
    elif not dyes.unweighted:  # else it stays float32, as upstream's does
        return image.astype(np.float64)
    # The order of evaluation decides the last bit, and truncation makes it visible.
    tinted = image + ((0.35 * image + 0.25 * dyes.colors[i]) - 38.25)
    dyed = np.clip(tinted, 0, 255).astype(np.uint8)
    alpha = (weighted / 255)[:, :, None]
    return np.asarray((1 - alpha) * image + alpha * dyed)


def row_weights(rows: int, first: int, full: int) -> NDArray[np.float64]:
    """0 above row `first`, rising to 1 at row `full`, 1 below. Either may lie beyond the last row: hair rows smoothed
    over a video's frames may reach further than one frame's mask.
    """
    weights = np.ones(rows, dtype=np.float64)
    weights[:first] = 0.0
    if full > first:
        weights[first:full] = (np.arange(first, min(full, rows)) - first) / (full - first)
    return weights
