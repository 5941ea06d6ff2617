"""Named faces for a bundle: few seeds that look as different from each other as the portraits allow."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from ohlora.bundle.gallery import GalleryEntry
from ohlora.errors import InvalidInputError
from ohlora.faces import latents_of_seeds
from ohlora.training.data import portraits

# Common given names from many places, each used for one face; no name says anything about the face that gets it.
NAMES = (
    "Ada", "Alex", "Amari", "Ariel", "Bo", "Charlie", "Dana", "Eden", "Emery", "Finley", "Gael", "Hana",
    "Indigo", "Jun", "Kai", "Lior", "Mika", "Noa", "Omari", "Quinn", "Remy", "Sasha", "Toni", "Yuri",
    "Zion", "Andrea", "Blair", "Cleo", "Devon", "Elia", "Frankie", "Harper", "Isa", "Jules", "Kim", "Lou",
    "Morgan", "Nikita", "Parker", "Robin", "Sam", "Tal", "Val", "Wren",
)  # fmt: skip
COUNT = 24
CANDIDATES = 3000


# How much a parameter counts for variety: what a viewer tells people apart by.
WEIGHTS: dict[str, float] = {
    "skin_tone": 1.2, "hair_shade": 1.2, "hair_length": 1.4, "hair_curl": 1.0, "hair_volume": 0.5, "hair_red": 0.5,
    "hair_grey": 0.6, "fringe": 0.5, "parting": 0.3, "glasses": 0.6, "face_width": 0.5, "jaw": 0.6, "chin": 0.3,
    "age": 0.5, "stubble": 0.4, "eye_color": 0.4, "lipstick": 0.3, "background_hue": 0.4, "background_value": 0.4,
    "clothes_hue": 0.3,
}  # fmt: skip
# The range of its normal that a shown face may have: a gallery shows calm faces that leave room for expressions; hair
# is in it, since the bundle dyes hair.
LIMITS: dict[str, tuple[float, float]] = {
    "hair_length": (-1.5, inf), "turn": (-0.9, 0.9), "tilt": (-0.9, 0.9), "nod": (-1.2, 1.2), "head_scale": (-1.5, 1.5),
    "eye_opening": (-0.5, 1.5), "mouth_opening": (-inf, 0.6), "smile": (-0.8, inf), "gaze_x": (-1.0, 1.0),
    "gaze_y": (-1.0, 1.0), "light_contrast": (-inf, 1.5),
}  # fmt: skip


def choose_seeds(count: int = COUNT, *, candidates: int = CANDIDATES, first_seed: int = 0) -> list[int]:
    """Farthest-point choice among the seeds first_seed .. first_seed + candidates - 1 that keep the limits.

    The first is the one nearest the middle; each further one is farthest from all before it, by its parameters scaled
    to [0, 1] and weighted. Raises InvalidInputError when too few seeds keep the limits.
    """
    if not 1 <= count <= candidates:
        raise InvalidInputError(f"a gallery of {count} faces cannot be chosen from {candidates} candidates")
    seeds = np.arange(first_seed, first_seed + candidates)
    u = latents_of_seeds(seeds)[0][:, : portraits.LATENTS]
    keep = np.ones(len(seeds), bool)
    for name, (low, high) in LIMITS.items():
        column = u[:, portraits.index(name)]
        keep &= (column >= low) & (column <= high)
    seeds, u = seeds[keep], u[keep]
    if len(seeds) < count:
        raise InvalidInputError(
            f"only {len(seeds)} of {candidates} seeds keep the gallery's limits, {count} are wanted: more --candidates"
        )
    return [int(seeds[i]) for i in farthest_points(visible_traits(u), count)]


def visible_traits(u: NDArray[np.float32]) -> NDArray[np.float64]:
    """Normals [N, LATENTS] -> weighted parameter values [N, traits that count]; each in [0, weight]."""
    chosen = [portraits.index(name) for name in WEIGHTS]
    low, high = (np.array([getattr(portraits.PARAMETERS[i], end) for i in chosen]) for end in ("low", "high"))
    values = portraits.parameters_from_latents(u).astype(np.float64)[:, chosen]
    return np.asarray(np.array(list(WEIGHTS.values())) * (values - low) / (high - low))


def farthest_points(points: NDArray[np.float64], count: int) -> list[int]:
    """Indices of `count` rows, each the farthest from those before it; ties go to the first row."""
    chosen = [int(np.argmin(((points - points.mean(0)) ** 2).sum(1)))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(np.argmax(distance)))
    return chosen


def make_gallery(seeds: Sequence[int]) -> list[GalleryEntry]:
    """Named entries for generators without labels. Raises InvalidInputError when names run out."""
    if len(seeds) > len(NAMES):
        raise InvalidInputError(f"{len(seeds)} faces need as many different names, there are {len(NAMES)}")
    latents = zip(NAMES, *latents_of_seeds(seeds), strict=False)
    return [GalleryEntry(name, None, z, label) for name, z, label in latents]
