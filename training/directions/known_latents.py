"""Directions of a generator whose latents are known: trained on procedural portraits, z[:, i] decides parameter i.

No search is needed then: w is regressed on the parameters' normals u = z[:, :LATENTS]. The row of a parameter is the
change of w per unit of u with all other parameters left alone, and a property's direction is a mixture of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.base.values import PROPERTIES
from ohlora.errors import InvalidInputError
from ohlora.latents.directions import EVERYONE, Directions
from ohlora.training.data import portraits
from ohlora.training.nets.stylegan import Generator

Mixture = Mapping[str, float]

# Parameter -> standard deviations that a strength of 1 moves it. The signs are the published ones (positive closes
# the eyes, closes the mouth, lowers the eye on the left of the picture), the sizes such that the documented strengths
# (eyes -1.2 .. 1.2, mouth and pose -1.8 .. 1.8) are a wide open and an almost closed eye, an open and a closed mouth,
# and a head tilted by 9 degrees and turned by 20.
MIXTURES: dict[str, Mixture] = {
    "eyes": {"eye_opening": -1.9},
    "mouth": {"mouth_opening": -1.2},
    "pose": {"tilt": -1.1, "turn": -1.0},
}
SAMPLES = 20_000
CHUNK = 2_000


@dataclass(frozen=True)
class Regression:
    """w = mean + u @ rows + rest, over random latents.

    rows: float64 [parameters, W], names: the parameters. explained: share of the variance of w that the parameters
    explain. readable: parameter -> share of the variance of its normal that is linear in w; what is far below 1
    has no direction.
    """

    names: tuple[str, ...]
    rows: NDArray[np.float64]
    mean: NDArray[np.float64]
    explained: float
    readable: dict[str, float]

    def direction(self, mixture: Mixture) -> NDArray[np.float64]:
        """Change of w, float64 [W], for a strength of 1. Raises InvalidInputError for an unknown parameter."""
        unknown = sorted(set(mixture) - set(self.names))
        if unknown:
            raise InvalidInputError(f"no parameter is called '{unknown[0]}'; there are: {', '.join(self.names)}")
        terms = [weight * self.rows[self.names.index(name)] for name, weight in mixture.items()]
        return np.asarray(np.sum(terms, axis=0))


@torch.no_grad()
def regress(generator: Generator, *, samples: int = SAMPLES, seed: int = 0) -> Regression:
    """Least squares of w on the portrait parameters' normals, from `samples` random latents.

    Only moments are kept, so memory does not grow with `samples`. Raises InvalidInputError for generators with labels
    or too few latents, and for fewer samples than unknowns.
    """
    config, names = generator.config, tuple(parameter.name for parameter in portraits.PARAMETERS)
    if config.label_size:
        raise InvalidInputError(
            f"directions are read off the latents: this generator also takes {config.label_size} labels"
        )
    if config.z_size < len(names):
        raise InvalidInputError(
            f"portraits have {len(names)} parameters, z of this generator only {config.z_size} values"
        )
    if samples < 4 * (len(names) + config.w_size):
        raise InvalidInputError(f"{samples} samples are too few for w of {config.w_size}: take {SAMPLES}")
    generator = generator.eval()
    stream = torch.Generator().manual_seed(seed)
    size = 1 + len(names) + config.w_size
    moments = torch.zeros(size, size, dtype=torch.float64)
    left = samples
    while left > 0:
        z = torch.randn(min(CHUNK, left), config.z_size, generator=stream)
        w = generator.mapping(z)
        if not torch.isfinite(w).all():
            raise InvalidInputError("the generator's mapping gives NaN or infinity: its weights are damaged")
        row = torch.cat([torch.ones(len(z), 1), z[:, : len(names)], w], 1).double()
        moments += row.T @ row
        left -= len(z)
    return _solve(moments.numpy() / samples, names)


def _solve(moments: NDArray[np.float64], names: tuple[str, ...]) -> Regression:
    """moments: mean outer product of (1, u, w)."""
    mean = moments[0, 1:]
    covariance = moments[1:, 1:] - np.outer(mean, mean)
    count = len(names)
    uu, uw, ww = covariance[:count, :count], covariance[:count, count:], covariance[count:, count:]
    rows = np.asarray(np.linalg.solve(uu, uw), dtype=np.float64)
    total = float(np.trace(ww))
    # The other way round: w may lie in few dimensions, hence the pseudo-inverse.
    back = np.linalg.pinv(ww, rcond=1e-9, hermitian=True) @ uw.T
    readable = np.clip(np.einsum("iw,wi->i", uw, back) / np.diag(uu), 0.0, 1.0)
    return Regression(
        names,
        rows,
        mean[count:] - mean[:count] @ rows,
        float(np.sum(uw * rows) / total) if total > 0 else 0.0,
        {name: float(value) for name, value in zip(names, readable, strict=True)},
    )


def find_directions(generator: Generator, *, samples: int = SAMPLES) -> tuple[Directions, dict[str, Any]]:
    """(directions of one group for every face, report). Raises InvalidInputError like `regress`."""
    regression = regress(generator, samples=samples)
    vectors = {name: regression.direction(MIXTURES[name]) for name in PROPERTIES}
    directions = Directions(
        {name: {EVERYONE: vector} for name, vector in vectors.items()}, "portrait parameters", state_sha256(generator)
    )
    used = sorted({name for mixture in MIXTURES.values() for name in mixture})
    report = {
        "generator_sha256": directions.generator_sha256,
        "samples": samples,
        "w_explained_by_parameters": round(regression.explained, 4),
        "readable_from_w": {name: round(regression.readable[name], 4) for name in used},
        "strength_1_moves_by_standard_deviations": {name: dict(MIXTURES[name]) for name in PROPERTIES},
        "norms": {name: round(float(np.linalg.norm(vector)), 4) for name, vector in vectors.items()},
        "cosines": cosines(vectors),
    }
    return directions, report


def cosines(vectors: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Cosine of each pair of directions: how much they lean on each other."""
    names: Sequence[str] = list(vectors)
    units = {name: vectors[name] / max(float(np.linalg.norm(vectors[name])), 1e-12) for name in names}
    return {f"{a}-{b}": round(float(units[a] @ units[b]), 4) for i, a in enumerate(names) for b in names[i + 1 :]}


def state_sha256(module: nn.Module) -> str:
    """Hash of a module's weights by name, type, shape and bytes: what directions found in training are bound to."""
    digest = hashlib.sha256()
    state: Mapping[str, Tensor] = module.state_dict()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode() + value.tobytes())
    return digest.hexdigest()
