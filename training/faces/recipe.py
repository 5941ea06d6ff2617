"""The recipe of stage `faces-set`. Can be imported without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ohlora.base.recipe import check, setting
from ohlora.errors import InvalidInputError


@dataclass(frozen=True)
class FacesRecipe:
    """What is drawn, and how it is shown.

    varied: of faces near one of a rare kind (`kinds.RARE`); they lie between its latent w and another face's, `toward`
        says how far. Only the part "train" has them: what is measured is drawn without choosing.
    crop: smallest side of a random square, as a fraction of the image.
    """

    part: Literal["train", "held-out", "test"] = setting(
        "train", "Whose seeds: what a student learns from, what chooses its epoch, or what it is measured on."
    )
    psi: tuple[float, float] = setting((0.6, 1.0), "Truncation of faces of a bundle, from and to.", low=0, high=1)
    varied: float = setting(0.35, "Fraction of the faces that are drawn near one of a rare kind.", low=0, below=1)
    toward: tuple[float, float] = setting((0.1, 0.4), "How near: 0 is that face, 1 another one.", low=0, high=1)
    sizes: tuple[int, ...] = setting((256, 384, 512), "Sides of the stored images, drawn at random.", low=64, high=1024)
    portraits: float = setting(0.25, "Fraction that is cut out as the hair model sees a head.", low=0, high=1)
    crops: float = setting(0.25, "Fraction that is cut to a random square.", low=0, high=1)
    crop: float = setting(0.7, "Smallest side of such a square, as a fraction of the image.", above=0, high=1)
    quality: int = setting(95, "Of the stored JPEG files.", low=50, high=100)
    seed: int = setting(0, "Of everything that is drawn beside the faces' own seeds.", low=0)

    def __post_init__(self) -> None:
        check(self)
        for name in ("psi", "toward"):
            low, high = getattr(self, name)
            if low > high:
                raise InvalidInputError(f"{name} must be the smaller number first, got {low:g},{high:g}")
        if not self.sizes:
            raise InvalidInputError("sizes must name one side at least")
        if self.portraits + self.crops > 1:
            raise InvalidInputError(
                f"portraits and crops are fractions of one set: {self.portraits:g} + {self.crops:g} is more than 1"
            )

    @property
    def varied_now(self) -> float:
        return self.varied if self.part == "train" else 0.0


PRESETS: Mapping[str, FacesRecipe] = {"photo": FacesRecipe()}
