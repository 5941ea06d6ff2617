"""Named faces for a bundle: few seeds that look as different from each other as the portraits allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ohlora.bundle.gallery import GalleryEntry
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed
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


@dataclass(frozen=True)
class Trait:
    """How much a parameter counts for variety, and the range of its normal that a shown face may have."""

    weight: float = 0.0
    low: float = -9.0
    high: float = 9.0


# Weights: what a viewer tells people apart by. Limits: a gallery shows calm faces that leave room for expressions;
# hair is in it, since the bundle dyes hair.
TRAITS: dict[str, Trait] = {
    "skin_tone": Trait(1.2),
    "hair_shade": Trait(1.2),
    "hair_length": Trait(1.4, low=-1.5),
    "hair_curl": Trait(1.0),
    "hair_volume": Trait(0.5),
    "hair_red": Trait(0.5),
    "hair_grey": Trait(0.6),
    "fringe": Trait(0.5),
    "parting": Trait(0.3),
    "glasses": Trait(0.6),
    "face_width": Trait(0.5),
    "jaw": Trait(0.6),
    "chin": Trait(0.3),
    "age": Trait(0.5),
    "stubble": Trait(0.4),
    "eye_color": Trait(0.4),
    "lipstick": Trait(0.3),
    "background_hue": Trait(0.4),
    "background_value": Trait(0.4),
    "clothes_hue": Trait(0.3),
    "turn": Trait(0.0, -0.9, 0.9),
    "tilt": Trait(0.0, -0.9, 0.9),
    "nod": Trait(0.0, -1.2, 1.2),
    "head_scale": Trait(0.0, -1.5, 1.5),
    "eye_opening": Trait(0.0, -0.5, 1.5),
    "mouth_opening": Trait(0.0, high=0.6),
    "smile": Trait(0.0, low=-0.8),
    "gaze_x": Trait(0.0, -1.0, 1.0),
    "gaze_y": Trait(0.0, -1.0, 1.0),
    "light_contrast": Trait(0.0, high=1.5),
}


def choose_seeds(
    count: int = COUNT,
    *,
    candidates: int = CANDIDATES,
    first_seed: int = 0,
    traits: Mapping[str, Trait] = TRAITS,
) -> list[int]:
    """Farthest-point choice among the seeds first_seed .. first_seed + candidates - 1 that keep the limits.

    The first is the one nearest the middle; each further one is farthest from all before it, by its parameters scaled
    to [0, 1] and weighted. Raises InvalidInputError when too few seeds keep the limits.
    """
    if not 1 <= count <= candidates:
        raise InvalidInputError(f"a gallery of {count} faces cannot be chosen from {candidates} candidates")
    seeds = np.arange(first_seed, first_seed + candidates)
    u = np.stack([face_from_seed(int(seed)).z[: portraits.LATENTS] for seed in seeds])
    keep = np.ones(len(seeds), bool)
    for name, trait in traits.items():
        column = u[:, portraits.index(name)]
        keep &= (column >= trait.low) & (column <= trait.high)
    seeds, u = seeds[keep], u[keep]
    if len(seeds) < count:
        raise InvalidInputError(
            f"only {len(seeds)} of {candidates} seeds keep the gallery's limits, {count} are wanted: more --candidates"
        )
    return [int(seeds[i]) for i in farthest_points(visible_traits(u, traits), count)]


def visible_traits(u: NDArray[np.float32], traits: Mapping[str, Trait]) -> NDArray[np.float64]:
    """Normals [N, LATENTS] -> weighted parameter values [N, traits that count]; each in [0, weight]."""
    values = portraits.parameters_from_latents(u).astype(np.float64)
    columns = []
    for name, trait in traits.items():
        if trait.weight > 0:
            parameter = portraits.PARAMETERS[portraits.index(name)]
            column = values[:, portraits.index(name)]
            columns.append(trait.weight * (column - parameter.low) / (parameter.high - parameter.low))
    return np.stack(columns, axis=1)


def farthest_points(points: NDArray[np.float64], count: int) -> list[int]:
    """Indices of `count` rows, each the farthest from those before it; ties go to the first row."""
    chosen = [int(np.argmin(((points - points.mean(0)) ** 2).sum(1)))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(np.argmax(distance)))
    return chosen


def make_gallery(seeds: Sequence[int], z_size: int = 512, names: Sequence[str] = NAMES) -> list[GalleryEntry]:
    """Named entries for generators without labels. Raises InvalidInputError when names run out or are not distinct."""
    if len(seeds) > len(names) or len(set(names)) != len(names):
        raise InvalidInputError(f"{len(seeds)} faces need as many different names, there are {len(set(names))}")
    faces = [face_from_seed(seed) for seed in seeds]
    if faces and faces[0].z.size != z_size:
        raise InvalidInputError(f"gallery faces have z of {faces[0].z.size} values, this generator takes {z_size}")
    return [GalleryEntry(name, None, face.z, face.label) for name, face in zip(names, faces, strict=False)]
