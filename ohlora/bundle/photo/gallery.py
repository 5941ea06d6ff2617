"""The faces that photographic bundles offer by name: seeds, chosen by eye from the first 400 for variety.

Names say what a face looks like to a viewer (age, sex, hair), and nothing about a person: there is none.
"""

from __future__ import annotations

import numpy as np

from ohlora.base.values import random_stream
from ohlora.bundle.gallery import GalleryEntry

SEEDS = {
    "girl-blond-curls": 43,
    "girl-black-hair": 58,
    "girl-black-hair-up": 9,
    "toddler-brown-curls": 183,
    "boy-blond": 57,
    "boy-black-fringe": 200,
    "young-woman-long-brown": 26,
    "young-woman-auburn-curls": 28,
    "young-woman-long-black": 138,
    "young-woman-black-waves": 244,
    "young-woman-black-curls": 215,
    "woman-blue-hair": 166,
    "woman-blond": 322,
    "older-woman-brown": 78,
    "older-woman-gray": 252,
    "young-man-short-black": 174,
    "young-man-black-fringe": 29,
    "young-man-thick-black": 353,
    "young-man-short-brown": 5,
    "man-curls-and-beard": 168,
    "man-shaved-black-beard": 85,
    "older-man-gray-mustache": 17,
    "older-man-gray-beard": 87,
    "older-man-gray-waves": 178,
}


def entries(z_size: int) -> list[GalleryEntry]:
    """The faces of `SEEDS`, as `--faces SEED` draws them."""
    none = np.zeros(0, np.float32)
    return [
        GalleryEntry(name, None, random_stream({"seed": seed}).standard_normal(z_size).astype(np.float32), none)
        for name, seed in SEEDS.items()
    ]
