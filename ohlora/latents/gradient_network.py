"""A small network that reads a property's score off a latent; its gradient is the direction of each face.

Documented shape (docs/spec/vectorfind.md, section 6.3): two tanh layers and a linear one. Dropout belongs to its
training only: with it the direction would be another one at every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# Names in published files, in the order of the layers.
KEYS = ("fc1.0.weight", "fc1.0.bias", "fc2.0.weight", "fc2.0.bias", "fc_final.weight", "fc_final.bias")


@dataclass(frozen=True, eq=False)
class GradientNetwork:
    """score = fc_final(tanh(fc2(tanh(fc1(x))))); D numbers in, one out.

    arrays: float32, under their published names, in the order of KEYS: [H1,D], [H1], [H2,H1], [H2], [1,H2], [1].
    scale: length of a direction, and with -1 its sign: published networks raise the score, directions lower it.
    Raises InvalidInputError for missing or unknown names, shapes that do not fit each other, values that are not
    finite, or a scale of 0.
    """

    arrays: Mapping[str, NDArray[np.floating]]
    scale: float = 1.0

    def __post_init__(self) -> None:
        given, known = self.arrays.keys(), set(KEYS)
        for problem, keys in (("misses", known - given), ("does not know", given - known)):
            if keys:
                raise InvalidInputError(
                    f"a gradient network {problem} {', '.join(sorted(keys))}; it has {', '.join(KEYS)}"
                )
        arrays = {key: np.ascontiguousarray(self.arrays[key]) for key in KEYS}
        for key, value in arrays.items():
            if value.dtype.kind != "f" or not np.isfinite(value).all():
                raise InvalidInputError(
                    f"gradient network: {key} must hold finite numbers, got {value.dtype}: it is damaged"
                )
            arrays[key] = value.astype(np.float32)
            arrays[key].flags.writeable = False
        # A missing axis becomes 0, which no layer has: the comparison below names the tensor.
        (first, size), (second, _) = ((*arrays[key].shape, 0, 0)[:2] for key in ("fc1.0.weight", "fc2.0.weight"))
        shapes = ((first, size), (first,), (second, first), (second,), (1, second), (1,))
        for (key, value), shape in zip(arrays.items(), shapes, strict=True):
            if value.shape != shape or 0 in shape:
                raise InvalidInputError(
                    f"gradient network: {key} has shape {list(value.shape)}, its layers need {list(shape)}: "
                    "these weights do not belong together"
                )
        if not np.isfinite(self.scale) or self.scale == 0.0:
            raise InvalidInputError(f"gradient network: scale must be a finite number other than 0, got {self.scale}")
        object.__setattr__(self, "arrays", arrays)
        object.__setattr__(self, "scale", float(self.scale))

    @property
    def size(self) -> int:
        """D: numbers of the latents that it reads."""
        return int(self.arrays["fc1.0.weight"].shape[1])

    def scores(self, x: Float32) -> Float64:
        """Scores, float64 [N], of x [N,D].

        Raises InvalidInputError for another shape and for values that are not finite.
        """
        _, second = self._hidden(x)
        return np.asarray((second @ self._exact[2].T + self.arrays["fc_final.bias"])[:, 0])

    def directions(self, x: Float32) -> Float64:
        """Gradient of the score at each latent of x [N,D], to unit length, times `scale`: float64 [N,D].

        Zeros where the network is flat: no direction is better than another there. Raises InvalidInputError like
        `scores`.
        """
        first, second = self._hidden(x)
        w1, w2, w3 = self._exact
        back = (1.0 - np.square(second)) * w3  # [N,H2]
        gradient = ((1.0 - np.square(first)) * (back @ w2)) @ w1
        length = np.linalg.norm(gradient, axis=1, keepdims=True)
        return np.asarray(self.scale * np.divide(gradient, length, out=np.zeros_like(gradient), where=length > 0))

    @cached_property
    def _exact(self) -> tuple[Float64, Float64, Float64]:
        """The three weights in float64: with them the rounding of a sum stays far below a float32 latent's."""
        w1, w2, w3 = (self.arrays[key].astype(np.float64) for key in KEYS[::2])
        return w1, w2, w3

    def _hidden(self, x: Float32) -> tuple[Float64, Float64]:
        """Both hidden layers, float64 [N,H1] and [N,H2]."""
        if x.ndim != 2 or x.shape[1] != self.size:
            raise InvalidInputError(f"this gradient network reads latents [N, {self.size}], got shape {list(x.shape)}")
        if not np.isfinite(x).all():
            raise InvalidInputError("a gradient network was given NaN or infinity: the latents are damaged")
        w1, w2, _ = self._exact
        first = np.tanh(x.astype(np.float64) @ w1.T + self.arrays["fc1.0.bias"])
        return first, np.tanh(first @ w2.T + self.arrays["fc2.0.bias"])
