"""What directions do to pictures: strengths put in against parameters read off by the portrait reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.values import PROPERTIES, Expression, Face
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed, latents_of
from ohlora.latents.directions import Directions
from ohlora.training.directions.reader import Reader
from ohlora.training.nets.pixels import as_bytes
from ohlora.training.nets.stylegan import Generator

# faces, one expression for all -> images uint8 [N,R,R,3]
Portray = Callable[[Sequence[Face], Expression], NDArray[np.uint8]]

# What is read for each property; the published pose score is the slope of the line between the eyes.
READINGS: dict[str, str] = {"eyes": "eye_opening", "mouth": "mouth_opening", "pose": "tilt"}
# The documented test strengths, with those in between that are missing (docs/spec/vectorfind.md, section 3.8).
STRENGTHS: dict[str, tuple[float, ...]] = {
    "eyes": (-1.2, -0.6, 0.0, 0.6, 1.2),
    "mouth": (-1.8, -0.9, 0.0, 0.9, 1.8),
    "pose": (-1.8, -1.2, -0.6, 0.0, 0.6),
}
# A step the wrong way counts from this share of the reading's spread among faces on; below it is reading noise.
STEP_TOLERANCE = 0.25
BATCH = 16


def from_generator(generator: Generator, directions: Directions) -> Portray:
    """Pictures straight from the PyTorch module."""

    @torch.no_grad()
    def portray(faces: Sequence[Face], expression: Expression) -> NDArray[np.uint8]:
        w = generator.mapping(torch.from_numpy(latents_of(faces)[0])).numpy()
        moved = np.stack([directions.apply(row, face, expression) for row, face in zip(w, faces, strict=True)])
        return as_bytes(generator.synthesis(generator.broadcast(torch.from_numpy(moved)), lod=0.0))

    return portray


def measure_directions(
    portray: Portray,
    reader: Reader,
    *,
    seeds: int = 200,
    strengths: Mapping[str, Sequence[float]] = STRENGTHS,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Move one property at a time on the faces of seeds 0 .. seeds - 1 and read the pictures.

    Per property: correlation (Pearson of strength and change against the same face at strength 0, pooled),
    correlation_raw (of strength and reading), correlation_per_face (mean over faces of their own),
    change_per_strength (slope of every reading, in standard deviations of it among undisturbed faces),
    mean_change (of the property's own reading, at each strength), monotone (share of faces whose reading never goes
    the wrong way). Signs are the published ones: positive strength lowers the reading.
    advance: called with the number of pictures done. Raises InvalidInputError for fewer than 3 faces or no strengths.
    """
    if seeds < 3:
        raise InvalidInputError(f"directions are measured on 3 faces or more, got {seeds}")
    for name in PROPERTIES:
        if len(set(strengths[name])) < 2:
            raise InvalidInputError(
                f"{name} needs two different strengths or more to be measured, got {list(strengths[name])}"
            )
    faces = [face_from_seed(seed) for seed in range(seeds)]

    def read(expression: Expression) -> NDArray[np.float64]:
        parts = []
        for start in range(0, seeds, BATCH):
            images = portray(faces[start : start + BATCH], expression)
            parts.append(reader.read(images))
            advance(len(images))
        return np.concatenate(parts)  # [seeds, readings]

    neutral = read(Expression())
    spread = np.maximum(neutral.std(0), 1e-9)
    result: dict[str, Any] = {"seeds": seeds, "strengths": {name: list(strengths[name]) for name in PROPERTIES}}
    result["spread"] = {name: round(float(s), 4) for name, s in zip(reader.names, spread, strict=True)}
    for name in PROPERTIES:
        given = np.array(sorted(set(strengths[name])))
        values = np.stack(
            [neutral if s == 0 else read(replace(Expression(), **{name: float(s)})) for s in given], axis=1
        )  # [seeds, strengths, readings]
        result[name] = _figures(given, values, neutral, spread, reader.names, READINGS[name])
    return result


def _figures(
    given: NDArray[np.float64],
    values: NDArray[np.float64],
    neutral: NDArray[np.float64],
    spread: NDArray[np.float64],
    names: Sequence[str],
    reading: str,
) -> dict[str, Any]:
    own = list(names).index(reading)
    change = values - neutral[:, None]
    pushed = np.broadcast_to(given, values.shape[:2])
    centred = given - given.mean()
    slopes = np.einsum("s,nsr->r", centred, change) / (len(change) * float(centred @ centred)) / spread
    steps = np.diff(values[:, :, own], axis=1) * np.sign(slopes[own] or 1.0)
    wrong = steps < -STEP_TOLERANCE * spread[own]
    each = [pearson(given, row) for row in values[:, :, own]]
    return {
        "reading": reading,
        "correlation": round(pearson(pushed, change[:, :, own]), 4),
        "correlation_raw": round(pearson(pushed, values[:, :, own]), 4),
        "correlation_per_face": round(float(np.mean(each)), 4),
        "change_per_strength": {name: round(float(slope), 4) for name, slope in zip(names, slopes, strict=True)},
        "mean_change": [round(float(x), 4) for x in change[:, :, own].mean(0)],
        "monotone": round(float(np.mean(~wrong.any(1))), 4),
    }


def pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson correlation of all values; 0 where one side does not vary."""
    x, y = a.ravel() - a.mean(), b.ravel() - b.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else 0.0
