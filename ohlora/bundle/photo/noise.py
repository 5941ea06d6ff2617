"""Another draw of a photographic generator's noise, which is frozen into its graph: one for all images of a job."""

from __future__ import annotations

import numpy as np

from ohlora.bundle.photo.fill_graph import fill_graph, initializer_arrays
from ohlora.errors import EngineError, InvalidInputError

ENDING = ".noise"  # of the planes' names


def drawn_noise(model: bytes, seed: int) -> bytes:
    """The synthesis graph `model` with fresh planes: normal, with the root mean square of the stored ones.

    The n-th plane, by name, depends on the seed and n alone. The image changes in its finest texture and a little in
    its shading, so a stored probe does not fit any more. Raises InvalidInputError for a negative seed, EngineError for
    a graph without planes.
    """
    if seed < 0:
        raise InvalidInputError(f"the seed of the noise must be 0 or more, got {seed}")
    planes = initializer_arrays(model, ENDING)
    if not planes:
        raise EngineError("its generator has no frozen noise that could be drawn anew: use noise 'fixed'")
    drawn = {}
    for number, name in enumerate(sorted(planes)):
        stream = np.random.Generator(np.random.Philox(key=[seed, number]))
        scale = np.sqrt(np.mean(planes[name].astype(np.float64) ** 2))
        drawn[name] = (scale * stream.standard_normal(planes[name].shape)).astype(np.float32)
    return fill_graph(model, drawn)
