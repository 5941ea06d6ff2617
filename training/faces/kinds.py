"""What a face's class map says about it: hair, coverings, glasses, lightness, and which rare kinds it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.training.data.parsing_classes import NAMES19

Figures = dict[str, Any]

_CLASS = {name: number for number, name in enumerate(NAMES19)}
_SKIN, _HAIR, _HAT, _GLASSES = (_CLASS[name] for name in ("skin", "hair", "hat", "glasses"))
_LIPS = [_CLASS["upper_lip"], _CLASS["lower_lip"], _CLASS["inner_mouth"]]
SEEN = 200  # pixels of 512 x 512 that a mean color needs
SIDE = 512


def figures_of(image: Rgb, parsing: NDArray[np.uint8]) -> Figures:
    """image uint8 RGB [H,W,3], parsing 19-class ids [H,W] -> figures of one face.

    hair, hat, glasses, skin, low_hair: fractions of the image; low_hair is hair in the lowest third. hair_lightness,
    skin_lightness: CIE L*, 0 to 100, hair_chroma: distance from gray; None with too few pixels. jaw: how much darker
    (L*) the skin beside and below the mouth is than the rest; None without a mouth.
    """
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    classes = cv2.resize(parsing, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    hair, skin = classes == _HAIR, classes == _SKIN
    figures: Figures = {
        "hair": float(hair.mean()),
        "hat": float((classes == _HAT).mean()),
        "glasses": float((classes == _GLASSES).mean()),
        "skin": float(skin.mean()),
        "low_hair": float(hair[2 * SIDE // 3 :].mean() / 3),
        "hair_lightness": None,
        "hair_chroma": None,
        "skin_lightness": None,
        "jaw": None,
    }
    if hair.sum() >= SEEN:
        light, a, b = lab[hair].mean(0)
        figures |= {"hair_lightness": float(light), "hair_chroma": float(np.hypot(a, b))}
    if skin.sum() >= SEEN:
        figures["skin_lightness"] = float(lab[skin][:, 0].mean())
        mouth = np.flatnonzero(np.isin(classes, _LIPS).any(1))
        if len(mouth):
            below = np.arange(SIDE)[:, None] >= mouth[0]
            jaw, rest = skin & below, skin & ~below
            if min(jaw.sum(), rest.sum()) >= SEEN:
                figures["jaw"] = float(lab[rest][:, 0].mean() - lab[jaw][:, 0].mean())
    return figures


def _above(figures: Figures, name: str, limit: float) -> bool:
    return figures[name] is not None and figures[name] > limit


def _below(figures: Figures, name: str, limit: float) -> bool:
    return figures[name] is not None and figures[name] < limit


# Kinds that random faces show seldom and hair models get wrong. A further one is one entry.
RARE: Mapping[str, Callable[[Figures], bool]] = {
    "hat": lambda f: f["hat"] > 0.02,
    "bald": lambda f: f["hair"] < 0.02 and f["hat"] <= 0.02 and f["skin"] > 0.05,
    "glasses": lambda f: f["glasses"] > 0.003,
    "beard": lambda f: _above(f, "jaw", 14),
    "gray hair": lambda f: _above(f, "hair_lightness", 50) and _below(f, "hair_chroma", 10),
    "light hair": lambda f: _above(f, "hair_lightness", 65),
    "dark skin": lambda f: _below(f, "skin_lightness", 42),
    "light skin": lambda f: _above(f, "skin_lightness", 80),
    "long hair": lambda f: f["low_hair"] > 0.08,
}


def kinds_of(figures: Figures) -> list[str]:
    """The rare kinds of a face, in the order of `RARE`."""
    return [name for name, holds in RARE.items() if holds(figures)]
