"""How far a graph's outputs are from the module's, by what they mean: pictures, masks, classes, latents, scores.

`figures(kind, made, wanted)` measures, a `Comparison` says which figures are bounded and by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import EngineError

Kind = Literal["image", "mask", "classes", "latent", "score"]
Figures = dict[str, float]
Array = NDArray[Any]

EQUAL_PSNR = 100.0  # said of identical pictures, whose ratio is infinite


@dataclass(frozen=True)
class Comparison:
    """Bounds of figures. most: figure -> largest allowed value; least: figure -> smallest."""

    most: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        bounds = [f"{name} at most {limit:g}" for name, limit in self.most.items()]
        return ", ".join(bounds + [f"{name} at least {limit:g}" for name, limit in self.least.items()])

    def missed(self, found: Figures) -> str | None:
        """The first figure that is out of bounds, in words; NaN is."""
        for name, limit in self.most.items():
            if not found[name] <= limit:
                return f"{name} is {found[name]:.3g}, allowed is at most {limit:g}"
        for name, limit in self.least.items():
            if not found[name] >= limit:
                return f"{name} is {found[name]:.3g}, allowed is at least {limit:g}"
        return None

    def require(self, what: str, found: Figures) -> None:
        """Raises EngineError naming the first figure of the output `what` that is out of bounds."""
        if missed := self.missed(found):
            raise EngineError(
                f"{what} differs too much from PyTorch: {missed}; nothing was written. The weights may hold extreme or "
                "non-finite values: check the checkpoint"
            )


# What float32 graphs are held to. Lower precision has bounds of its own.
EXACT: dict[Kind, Comparison] = {
    "image": Comparison({"max_grey_levels": 1, "share_different": 1e-3}),
    "mask": Comparison({"max_abs_error": 1e-3, "mean_abs_error": 1e-5}),
    "classes": Comparison({"share_different": 2e-4}),
    "latent": Comparison({"relative_error": 1e-4}),
    "score": Comparison({"relative_error": 1e-4}),
}


def figures(kind: Kind, made: Array, wanted: Array) -> Figures:
    """All figures of one output. Raises EngineError for another shape than wanted."""
    if made.shape != wanted.shape:
        raise EngineError(f"an output has shape {list(made.shape)}, PyTorch makes {list(wanted.shape)}")
    return MEASURES[kind](made, wanted)


def image_figures(made: Array, wanted: Array) -> Figures:
    """uint8 pictures [N,H,W,3]: grey levels, share of values that differ, PSNR in dB."""
    difference = np.abs(made.astype(np.int16) - wanted.astype(np.int16))
    square = float(np.mean(difference.astype(np.float64) ** 2))
    return {
        "max_grey_levels": float(difference.max()),
        "mean_grey_levels": float(difference.mean()),
        "share_different": float((difference > 0).mean()),
        "psnr_db": EQUAL_PSNR if square == 0 else min(EQUAL_PSNR, 10 * float(np.log10(255.0**2 / square))),
    }


def mask_figures(made: Array, wanted: Array) -> Figures:
    """Probabilities [N,H,W]: differences, and the overlap of what lies at .5 and above; 1 where both are empty."""
    difference = np.abs(made.astype(np.float64) - wanted)
    ours, theirs = made >= 0.5, wanted >= 0.5
    union = int((ours | theirs).sum())
    return {
        "max_abs_error": float(difference.max()),
        "mean_abs_error": float(difference.mean()),
        "iou": int((ours & theirs).sum()) / union if union else 1.0,
    }


def class_figures(made: Array, wanted: Array) -> Figures:
    """Class ids [N,H,W]: share of pixels that differ, and the mean overlap over the classes that occur."""
    overlaps = []
    for label in np.union1d(np.unique(made), np.unique(wanted)):
        ours, theirs = made == label, wanted == label
        overlaps.append(int((ours & theirs).sum()) / int((ours | theirs).sum()))
    return {"share_different": float((made != wanted).mean()), "mean_iou": float(np.mean(overlaps))}


def value_figures(made: Array, wanted: Array) -> Figures:
    """Numbers [N, ...]: largest difference, also relative to the largest wanted value (at least 1)."""
    error = float(np.max(np.abs(made.astype(np.float64) - wanted)))
    return {"max_abs_error": error, "relative_error": error / max(1.0, float(np.max(np.abs(wanted))))}


MEASURES: dict[Kind, Callable[[Array, Array], Figures]] = {
    "image": image_figures,
    "mask": mask_figures,
    "classes": class_figures,
    "latent": value_figures,
    "score": value_figures,
}
