"""Portraits in batches: parameters -> pictures, parsing maps, soft hair maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ohlora.errors import InvalidInputError
from ohlora.kernels.threads import for_each
from ohlora.training.data.portraits.painter import paint
from ohlora.training.data.portraits.parameters import check
from ohlora.training.data.portraits.scene import scene_of

RESOLUTIONS = (16, 2048)


@dataclass(frozen=True)
class Portraits:
    """images uint8 [N,R,R,3] RGB; parsing uint8 [N,R,R], classes 0..10; hair float32 [N,R,R], the share of each
    pixel that is hair, in [0,1]; parameters float32 [N, LATENTS].
    """

    images: NDArray[np.uint8]
    parsing: NDArray[np.uint8]
    hair: NDArray[np.float32]
    parameters: NDArray[np.float32]


def render(parameters: ArrayLike, resolution: int, threads: int | None = None) -> Portraits:
    """Paint portraits with these parameters [N, LATENTS] at resolution x resolution pixels.

    A picture depends on its parameters and the resolution alone. Raises InvalidInputError for a parameter out of its
    range or a resolution outside 16 .. 2048.
    """
    if not RESOLUTIONS[0] <= resolution <= RESOLUTIONS[1]:
        raise InvalidInputError(
            f"portrait resolution must be in [{RESOLUTIONS[0]}, {RESOLUTIONS[1]}], got {resolution}"
        )
    values = check(parameters)
    count = len(values)
    images = np.empty((count, resolution, resolution, 3), dtype=np.uint8)
    parsing = np.empty((count, resolution, resolution), dtype=np.uint8)
    hair = np.empty((count, resolution, resolution), dtype=np.float32)

    def one(i: int) -> None:
        picture = np.empty((resolution, resolution, 3), dtype=np.float32)
        paint(scene_of(values[i]), picture, parsing[i], hair[i])
        images[i] = (picture * 255.0 + 0.5).astype(np.uint8)

    # A painted pixel costs far more than one of the kernels that for_each is tuned for: each is worth a thread.
    for_each(one, count, count * 100_000, threads)
    return Portraits(images, parsing, hair, values.astype(np.float32))
