"""Small direction sets and gradient networks, and sizes of a generator that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ohlora.base.values import PROPERTIES
from ohlora.latents.directions import Directions
from ohlora.latents.gradient_network import KEYS, GradientNetwork


@dataclass(frozen=True)
class Sizes:
    """Lengths of a generator's latents."""

    z_size: int = 512
    label_size: int = 0
    w_size: int = 512
    split_size: int = 0


def shapes(size: int, first: int | None = None, second: int | None = None) -> dict[str, tuple[int, ...]]:
    """Published keys and shapes; the documented widths of the hidden layers unless others are given."""
    first, second = first or 768 + size // 4, second or 128 + size // 8
    return dict(zip(KEYS, ((first, size), (first,), (second, first), (second,), (1, second), (1,)), strict=True))


def network(size: int = 6, scale: float = 1.0, seed: int = 0) -> GradientNetwork:
    """A small one; any sizes that fit each other are good."""
    rng = np.random.default_rng(seed)
    arrays = {key: 0.5 * rng.standard_normal(shape) for key, shape in shapes(size, 5, 4).items()}
    return GradientNetwork(arrays, scale)


def make(space: str = "mapping_split2", size: int = 6, networks: tuple[str, ...] = ("eyes",), scale: float = -1.0):
    """Vectors of two groups, except for the properties that have a network."""
    rng = np.random.default_rng(3)
    fixed = {n: {g: rng.standard_normal(size) for g in ("hh", "ll")} for n in PROPERTIES if n not in networks}
    found = {name: network(size, scale, seed) for seed, name in enumerate(networks)}
    return Directions(fixed, "set", None, space, found)
