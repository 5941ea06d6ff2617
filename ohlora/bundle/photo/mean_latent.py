"""The mean of w, which a published MobileStyleGAN does not bring: taken over latents that anybody can draw again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.bundle.photo.architecture import EPSILON, ROOT_TWO, SLOPE, Architecture

SAMPLES, CHUNK = 65536, 512


def mapped(
    state: Mapping[str, NDArray[Any]], architecture: Architecture, z: NDArray[np.float32]
) -> NDArray[np.float64]:
    """w float64 [N, w_size] of z float32 [N, z_size]."""
    x = z.astype(np.float64)
    x *= 1.0 / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + EPSILON)
    for i in range(architecture.mapping_layers):
        weight, bias = (np.asarray(state[f"mapping.fc{i}.{leaf}"], np.float64) for leaf in ("weight", "bias"))
        x = x @ weight.T + bias
        x = ROOT_TWO * np.maximum(x, SLOPE * x)
    return x


def mean_latent(
    state: Mapping[str, NDArray[Any]],
    architecture: Architecture,
    report: Callable[[int, int], None] = lambda done, total: None,
    samples: int = SAMPLES,
) -> NDArray[np.float32]:
    """Mean of w over `RandomState(0).randn(samples, z_size)`, float32 [w_size]; report(latents done, of how many).

    float64 throughout and rounded once: machines that add in another order still give the same float32 numbers, so that
    bundles made on them share their identity.
    """
    weights = {name: np.asarray(value, np.float64) for name, value in state.items() if name.startswith("mapping.")}
    stream = np.random.RandomState(0)
    total = np.zeros(architecture.w_size)
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        z = stream.randn(count, architecture.z_size).astype(np.float32)
        total += mapped(weights, architecture, z).sum(axis=0)
        report(start + count, samples)
    return (total / samples).astype(np.float32)
