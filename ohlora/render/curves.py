"""Named animation curves (spec: runtime, sections 4 and 7), as one Look per frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ohlora.errors import BadRequest
from ohlora.params import Expression, Ombre
from ohlora.render.job import Look


@dataclass(frozen=True, slots=True)
class Curve:
    """frames, frames per second, and ombre and expression as functions of the frame number."""

    frames: int
    fps: float
    ombre: Callable[[int], Ombre]
    expression: Callable[[int], Expression]


def _product(step: int) -> Ombre:
    # One turn of the colour wheel, three of the height, four of the gradient.
    p = step / 360
    return Ombre(p, 0.6 + 0.2 * math.cos(6 * math.pi * p), 0.5 + 0.2 * math.cos(8 * math.pi * p))


CURVES: dict[str, Curve] = {
    "gif40": Curve(
        40,
        20.0,
        lambda x: Ombre(0.025 * x, 0.1 + 0.01 * x, 0.05 + 0.015 * x),
        lambda x: Expression(
            -1.2 + 0.12 * x if x < 20 else 1.2 - 0.12 * (x - 20),
            1.2 - 0.06 * x,
            0.6 - 0.09 * x if x < 20 else -1.2,
        ),
    ),
    "window80": Curve(
        80,
        20.0,
        lambda x: Ombre(0.0125 * x, 0.1 + 0.005 * x, 0.05 + 0.0075 * x),
        lambda x: Expression(
            -1.2 + 0.06 * x if x < 40 else 1.2 - 0.06 * (x - 40),
            1.2 - 0.03 * x,
            0.6 - 0.045 * x if x < 40 else -1.2,
        ),
    ),
    # The live product's dye schedule; its expression follows the talk, so it stays still here.
    "product360": Curve(360, 30.0, _product, lambda x: Expression()),
}


def curve_looks(name: str, expressions: bool) -> list[Look]:
    """One look per frame; neutral expressions when `expressions` is off. Raises BadRequest for unknown names."""
    if name not in CURVES:
        raise BadRequest(f"unknown curve '{name}': choose {', '.join(CURVES)}")
    curve = CURVES[name]
    return [Look(curve.expression(x) if expressions else Expression(), curve.ombre(x)) for x in range(curve.frames)]
