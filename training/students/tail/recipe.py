"""Recipes of `train tail`. A size is one entry of TAILS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ohlora.errors import InvalidInputError


@dataclass(frozen=True)
class TailRecipe:
    """How a tail for images of `size` pixels is fitted.

    faces, held_out: drawn from `seed` and the seed after it; psi of the first is uniform in `psi`, of the held-out ones
        0.7 for one half and 1 for the other. batch, crop: crops of so many feature pixels a step. margin: output pixels
        at each side of a crop that do not count, since they lack their neighbors. rate: of a tensor, times its root
        mean square at the start. floor: PSNR in dB, held-out mean, below which a tail is refused.
    """

    size: int
    faces: int
    steps: int
    floor: float
    held_out: int = 24
    psi: tuple[float, float] = (0.5, 1.0)
    batch: int = 8
    crop: int = 32
    margin: int = 10
    rate: float = 0.004
    warmup: int = 30
    clip_norm: float = 1.0
    seed: int = 77

    def __post_init__(self) -> None:
        if self.faces < 1 or self.steps < 1 or self.held_out < 2 or self.batch < 1:
            raise InvalidInputError(f"faces, steps and batch must be 1 or more, held_out 2 or more: {self}")
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
        TailRecipe(256, faces=120, steps=2000, floor=32.0),
        TailRecipe(128, faces=160, steps=1500, floor=29.0),
        TailRecipe(512, faces=60, steps=800, floor=35.0),
    )
}


def tail_recipe(size: int) -> TailRecipe:
    """Raises InvalidInputError naming the sizes that there are."""
    if size not in TAILS:
        raise InvalidInputError(
            f"there is no tail for {size} pixels: --size must be {', '.join(map(str, sorted(TAILS)))}"
        )
    return TAILS[size]


def example_bytes(recipe: TailRecipe, channels: int) -> int:
    """What the examples take on the disk while a tail is fitted. channels: of the features at the cut."""
    return 2 * (recipe.faces + recipe.held_out) * (channels * recipe.cut**2 + 3 * recipe.size**2)
