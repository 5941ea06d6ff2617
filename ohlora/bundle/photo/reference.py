"""What a MobileStyleGAN draws, evaluated literally in NumPy and float64: an installed bundle is tested with it.

It shares neither graph nor rewrites with them, and gives the same bytes on every machine. A second or two for an image
of 1024 pixels, and memory for two of its feature maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.bundle.photo.architecture import BANDS, HAAR, SLOPE, Architecture
from ohlora.bundle.photo.rewrites import bands_of

Exact = NDArray[np.float64]
PIXELS_AT_ONCE = 1 << 14


class Reference:
    """Features of one image's wp [layers, w_size] once; images of several sizes from them."""

    def __init__(self, state: Mapping[str, NDArray[Any]], architecture: Architecture, wp: NDArray[np.float32]) -> None:
        self._state, self._architecture = state, architecture
        self._wp = wp.astype(np.float64)
        self._scales = architecture.style_scales()
        x = self._styled(self._weight("synthesis.const")[0].copy(), "synthesis.first", 0)
        x = self._activated(_dense(x, self._weight("synthesis.first.weight")), "synthesis.first")
        for block in architecture.blocks:
            name = f"synthesis.{block.name}"
            x = inverse_haar(self._styled(x, f"{name}.up", block.row))
            for layer, row in ((f"{name}.conv1", block.row), (f"{name}.conv2", block.row + 1)):
                x = _depthwise(self._styled(x, layer, row), self._weight(f"{layer}.dw.weight")[:, 0])
                x = self._activated(_pointwise(x, self._weight(f"{layer}.pw.weight")[:, :, 0, 0]), layer)
        self._features = self._styled(x, "synthesis.head", -1)

    def image(self, size: int) -> Exact:
        """[3,size,size], nominally in [-1, 1]. Sizes below the network's own are area means."""
        bands = np.tensordot(self._weight("synthesis.head.weight")[:, :, 0, 0], self._features, 1)
        image = inverse_haar(bands + self._weight("synthesis.head.bias")[:, None, None])
        factor = image.shape[1] // size
        mean: Exact = image.reshape(3, size, factor, size, factor).mean((2, 4))
        return mean

    def levels(self, size: int) -> Rgb:
        """uint8 [size,size,3]."""
        return levels(self.image(size)).transpose(1, 2, 0)

    def _weight(self, name: str) -> Exact:
        return np.asarray(self._state[name], np.float64)

    def _styled(self, x: Exact, layer: str, row: int) -> Exact:
        style = self._weight(f"{layer}.affine.weight") @ self._wp[row] + self._weight(f"{layer}.affine.bias")
        x *= (style * self._scales.get(layer, 1.0))[:, None, None]
        return x

    def _activated(self, x: Exact, layer: str) -> Exact:
        noise, bias = self._weight(f"{layer}.noise")[0, 0], self._weight(f"{layer}.bias")
        for plane, offset in zip(x, bias, strict=True):
            plane += noise + offset
            np.maximum(plane, SLOPE * plane, out=plane)
        return x


def levels(image: Exact) -> Rgb:
    """Grey levels of an image that is nominally in [-1, 1]; halves are rounded up."""
    return np.clip((image + 1.0) * 127.5 + 0.5, 0.0, 255.0).astype(np.uint8)


def inverse_haar(x: Exact) -> Exact:
    """[C,R,R] -> [C/4,2R,2R], bands in the published order."""
    bands = bands_of(len(x))
    doubled = np.empty((len(x) // BANDS, 2 * x.shape[1], 2 * x.shape[2]))
    for channel, sources in enumerate(bands.T):
        for pixel in range(4):
            signs = [HAAR[k][pixel] for k in range(BANDS)]
            doubled[channel, pixel // 2 :: 2, pixel % 2 :: 2] = sum(
                s * x[c] for s, c in zip(signs, sources, strict=True)
            )
    return doubled


def _dense(x: Exact, weight: Exact) -> Exact:
    """3x3, zero padding."""
    height, width = x.shape[1:]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    taps = [(i, j) for i in range(3) for j in range(3)]
    return np.asarray(sum(
        np.tensordot(weight[:, :, i, j], padded[:, i : i + height, j : j + width], 1) for i, j in taps
    ))  # fmt: skip


def _depthwise(x: Exact, kernels: Exact) -> Exact:
    """3x3, zero padding, in place."""
    height, width = x.shape[1:]
    padded = np.zeros((height + 2, width + 2))
    for plane, kernel in zip(x, kernels, strict=True):
        padded[1:-1, 1:-1] = plane
        plane[...] = 0.0
        for i in range(3):
            for j in range(3):
                plane += kernel[i, j] * padded[i : i + height, j : j + width]
    return x


def _pointwise(x: Exact, weight: Exact) -> Exact:
    """1x1; in place where it keeps the number of channels."""
    pixels = x.reshape(len(x), -1)
    made = pixels if weight.shape[0] == len(x) else np.empty((weight.shape[0], pixels.shape[1]))
    for start in range(0, pixels.shape[1], PIXELS_AT_ONCE):
        part = slice(start, start + PIXELS_AT_ONCE)
        made[:, part] = weight @ pixels[:, part]
    return made.reshape(-1, *x.shape[1:])
