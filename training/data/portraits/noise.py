"""Small scalar functions that every part of the painter uses: soft steps, coverage, repeatable noise."""

from __future__ import annotations

import math

from ohlora.kernels.threads import compiled


@compiled(inline="always")
def clamp(x: float) -> float:
    return min(max(x, 0.0), 1.0)


@compiled(inline="always")
def smooth(low: float, high: float, x: float) -> float:
    """Cubic step from 0 at `low` to 1 at `high`; falling when low > high."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@compiled(inline="always")
def mix(a: float, b: float, t: float) -> float:
    return a + (b - a) * t


@compiled(inline="always")
def bump(x: float, y: float, rx: float, ry: float) -> float:
    """Bell of height 1 with radii rx, ry."""
    return math.exp(-(x * x) / (rx * rx) - (y * y) / (ry * ry))


@compiled(inline="always")
def cover(distance: float, pixel: float) -> float:
    """Share of a pixel that lies inside an edge at signed `distance` (positive inside)."""
    return min(max(distance / pixel + 0.5, 0.0), 1.0)


@compiled()
def lattice(i: int, j: int) -> float:
    """Pseudo-random value in [-1, 1] of the lattice point (i, j): integer hash, the same on every machine."""
    h = (i * 374761393 + j * 668265263) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = h ^ (h >> 16)
    return h / 2147483647.5 - 1.0


@compiled()
def noise(x: float, y: float) -> float:
    """Smooth value noise in [-1, 1], one lattice cell a unit."""
    i, j = math.floor(x), math.floor(y)
    u, v = x - i, y - j
    u, v = u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v)
    top = mix(lattice(i, j), lattice(i + 1, j), u)
    bottom = mix(lattice(i, j + 1), lattice(i + 1, j + 1), u)
    return mix(top, bottom, v)
