"""Recipes of `train tail`. A size is one entry of TAILS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ohlora.base.recipe import check, setting
from ohlora.base.text import one_of
from ohlora.errors import InvalidInputError


@dataclass(frozen=True)
class TailRecipe:
    """How a tail for images of `size` pixels is fitted.

    psi: of the faces to learn from, uniform; of the held-out ones it is 0.7 for one half and 1 for the other. floor:
    PSNR in dB, held-out mean, below which a tail is refused.
    """

    size: int = 256
    floor: float = 32.0
    faces: int = setting(120, "Faces to learn from.", low=1)
    steps: int = setting(2000, "Steps of training.", low=1)
    held_out: int = setting(24, "Faces that say how near it comes.", low=2)
    psi: tuple[float, float] = (0.5, 1.0)
    batch: int = setting(8, "Crops a step.", low=1)
    crop: int = setting(32, "Side of a crop, in pixels of the features.", low=4)
    margin: int = setting(10, "Pixels inside a crop's sides that do not count: they lack their neighbors.", low=0)
    reach: int = setting(12, "The more, the more crops lie at the border of the image, where all pixels count.", low=0)
    rate: float = setting(0.004, "Learning rate of a tensor, times its root mean square at the start.", above=0)
    warmup: int = setting(30, "Steps over which the rate rises.", low=1)
    clip_norm: float = setting(1.0, "Of the gradient.", above=0)
    seed: int = setting(77, "Of faces and crops; the held-out faces are drawn from the one after it.", low=0)

    def __post_init__(self) -> None:
        check(self)
        if 2 * self.crop - 2 * self.margin < 1:
            raise InvalidInputError(f"a margin of {self.margin} leaves nothing of a crop of {2 * self.crop} pixels")

    @property
    def cut(self) -> int:
        """Side of the features that the tail reads."""
        return self.size // 2


# Faces and steps for 2 to 8 minutes on one CPU core.
TAILS: Mapping[int, TailRecipe] = {
    recipe.size: recipe
    for recipe in (
        TailRecipe(256, floor=32.0, faces=120, steps=2000),
        TailRecipe(128, floor=29.0, faces=160, steps=1500),
        TailRecipe(512, floor=35.0, faces=60, steps=800),
    )
}


def tail_recipe(size: int) -> TailRecipe:
    """Raises InvalidInputError naming the sizes that there are."""
    if size not in TAILS:
        raise InvalidInputError(f"there is no tail for {size} pixels: --size must be {one_of(map(str, sorted(TAILS)))}")
    return TAILS[size]


def example_bytes(recipe: TailRecipe, channels: int) -> int:
    """What the examples take on the disk while a tail is fitted. channels: of the features at the cut."""
    return 2 * (recipe.faces + recipe.held_out) * (channels * recipe.cut**2 + 3 * recipe.size**2)
