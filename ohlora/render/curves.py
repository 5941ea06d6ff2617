"""Named animation curves (docs/spec/runtime.md, sections 4, 7 and 8), as one Look per frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ohlora.base.values import Expression, Ombre
from ohlora.errors import InvalidInputError
from ohlora.render.job import Look
from ohlora.render.live import LIVE_PARAMETERS, MAX_FRAMES, blink_expressions, live_expressions


@dataclass(frozen=True, slots=True)
class Curve:
    """frames, frames per second, and ombre and expression as functions of the frame number.

    ombre None: the hair keeps its colour. expression None: the face keeps its expression, unless live names the set of
    `LIVE_PARAMETERS` that moves it; then frames is only the default.
    """

    about: str
    frames: int
    fps: float
    ombre: Callable[[int], Ombre] | None = None
    expression: Callable[[int], Expression] | None = None
    live: str | None = None

    @property
    def moves_face(self) -> bool:
        return self.expression is not None or self.live is not None


def _gif_dye(x: float) -> Ombre:
    return Ombre(0.025 * x, 0.1 + 0.01 * x, 0.05 + 0.015 * x)


def _gif_expression(x: float) -> Expression:
    eyes = -1.2 + 0.12 * x if x < 20 else 1.2 - 0.12 * (x - 20)
    return Expression(eyes, 1.2 - 0.06 * x, 0.6 - 0.09 * x if x < 20 else -1.2)


def _product(step: int) -> Ombre:
    # One turn of the colour wheel, three of the height, four of the gradient; then again.
    p = step % 360 / 360
    return Ombre(p, 0.6 + 0.2 * math.cos(6 * math.pi * p), 0.5 + 0.2 * math.cos(8 * math.pi * p))


def _sweep(step: int) -> Expression:
    # One property after the other, the others at rest; both ends belong to each.
    part, i = divmod(step, 20)
    name, first, last = (("eyes", -1.2, 1.2), ("mouth", -1.8, 1.8), ("pose", -1.8, 0.6))[part]
    return Expression(**{name: first + (last - first) * i / 19})


_BLINK = blink_expressions(LIVE_PARAMETERS["v4"], 30)

CURVES: dict[str, Curve] = {
    "gif40": Curve("dye and expression of the documented GIFs", 40, 20.0, _gif_dye, _gif_expression),
    "window80": Curve(
        "the same at half the pace, as the documented window shows it",
        80,
        20.0,
        lambda x: _gif_dye(x / 2),
        lambda x: _gif_expression(x / 2),
    ),
    # Upstream shows these three as fast as they come; the rates are ours.
    "sweep60": Curve("eyes, mouth and pose in turn, from end to end; no dye", 60, 20.0, None, _sweep),
    "blink": Curve("one blink of the live product; no dye", 30, 30.0, None, lambda x: _BLINK[x]),
    # The live product's dye schedule alone; its expression is that of `live`.
    "product360": Curve("the live product's dye, once round; no expression", 360, 30.0, _product),
    "live": Curve("the live product (v4): drift, blinks, --expression, dye", 360, 30.0, _product, live="v4"),
    "live-v3": Curve("the live product of v2 and v3: livelier; no dye", 300, 30.0, live="v3"),
}


def find_curve(name: str) -> Curve:
    """Raises InvalidInputError listing all curves when there is none of that name."""
    if name not in CURVES:
        known = "; ".join(f"{key} ({curve.frames} frames, {curve.fps:g} fps)" for key, curve in CURVES.items())
        raise InvalidInputError(f"unknown curve '{name}': choose {known}")
    return CURVES[name]


def curve_looks(
    name: str,
    expressions: bool,
    *,
    dyed: bool = True,
    frames: int | None = None,
    seed: int = 0,
    target: Expression | None = None,
) -> list[Look]:
    """One look per frame. expressions off: the face keeps its own; dyed off: the hair does.

    frames: [1, 1,000,000], of live curves alone, default the curve's. seed: of live curves, [0, 2**63 - 1]. target: of
    live curves, an expression that is reached and left in the middle.
    Raises InvalidInputError for unknown names, values out of range, and frames or a target for a curve that is fixed.
    """
    curve = find_curve(name)
    if curve.live is None and (target is not None or frames not in (None, curve.frames)):
        given = "an expression" if target is not None else f"{frames} frames"
        live = " or ".join(key for key, other in CURVES.items() if other.live)
        raise InvalidInputError(
            f"curve '{name}' has {curve.frames} frames that are fixed: {given} can be given to {live}"
        )
    count = curve.frames if frames is None else frames
    if not 1 <= count <= MAX_FRAMES:
        raise InvalidInputError(f"frames of a live curve must be in [1, {MAX_FRAMES:,}], got {count}")
    shown = [Expression()] * count
    if expressions and curve.live is not None:
        shown = live_expressions(LIVE_PARAMETERS[curve.live], count, seed, target, fps=curve.fps)
    elif expressions and curve.expression is not None:
        shown = [curve.expression(x) for x in range(count)]
    return [Look(expression, curve.ombre(x) if dyed and curve.ombre else None) for x, expression in enumerate(shown)]
