"""Generators that draw the portraits themselves, exactly or wrongly."""

from __future__ import annotations

import numpy as np

from ohlora.training.data.portraits import parameters_from_latents, render

SMALL = 32  # pixels a side


class Imitator:
    """A generator that draws its portraits a little brighter."""

    identity, resolution = "imitator", SMALL

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, z: np.ndarray) -> np.ndarray:
        self.batches.append(len(z))
        images = render(parameters_from_latents(z), SMALL).images.astype(np.int64)
        return np.clip(images + 9, 0, 255).astype(np.uint8)

    def close(self) -> None:
        pass


class Stranger(Imitator):
    """A generator of other pictures."""

    identity = "stranger"

    def __call__(self, z: np.ndarray) -> np.ndarray:
        return super().__call__(z[:, ::-1])
