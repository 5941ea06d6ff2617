"""Inputs that a network is compared on: drawn portraits where it sees pictures, seeded draws where it sees numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError
from ohlora.photos.segmentation import resize_area
from ohlora.training.data import portraits
from ohlora.training.data.portraits.render import RESOLUTIONS

Array = NDArray[Any]

FACES_A_SEED = 1000  # no two seeds share a face below this many samples


def faces(seed: int, count: int, side: int) -> NDArray[np.uint8]:
    """uint8 RGB [count,side,side,3]: procedural portraits, others for every seed.

    Raises InvalidInputError for a negative seed or a count outside 1 .. FACES_A_SEED.
    """
    if seed < 0 or not 1 <= count <= FACES_A_SEED:
        raise InvalidInputError(
            f"probe inputs need a seed from 0 on and 1 to {FACES_A_SEED} samples, got {seed} and {count}"
        )
    first = seed * FACES_A_SEED
    painted = max(side, RESOLUTIONS[0])
    images = portraits.render(portraits.parameters_from_seeds(np.arange(first, first + count)), painted).images
    return np.stack([resize_area(image, (side, side)) for image in images])


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    """Standard normal float32 of `shape`, from Philox: the same on every machine."""
    return np.random.Generator(np.random.Philox(key=seed)).standard_normal(shape).astype(np.float32)
