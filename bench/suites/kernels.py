"""The ombre and score kernels against the documented NumPy and Python, on arrays in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.bench.baselines.ombre import documented_ombre
from ohlora.bench.baselines.properties import documented
from ohlora.bench.runner.scenes import batch, painted
from ohlora.bench.runner.subjects import Options
from ohlora.bench.runner.timing import Facts, Group, Work
from ohlora.kernels.choices import Algorithm, Backend
from ohlora.kernels.ombre import apply_ombre, blend_ombre, prepare_hair
from ohlora.kernels.properties import ALGORITHMS, score

COLOR, HEIGHT, GRAD = 0.5, 0.7, 0.5
OMBRE_BATCH, SWEEP, SCORE_BATCH = 64, 40, 256
SAMPLE = 4  # maps of a round of the documented loops: one takes as long as a thousand of the kernel's
GOALS = {"ombre": 30.0, "v2": 200.0}


def kernel_groups(options: Options) -> Iterator[Group]:
    """Ombre of a batch, a sweep of one picture, the three scores."""
    yield ombre_batch()
    yield ombre_sweep()
    for algorithm in ALGORITHMS:
        yield scores(algorithm)


def scene(count: int) -> tuple[Rgb, NDArray[np.float32]]:
    """Pictures uint8 [N,256,256,3] and hair maps float32 [N,224,224] with hair on a third of the area, both sides."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-1:1:224j, -1:1:224j]
    ring = (np.hypot(x, y * 0.8) < 0.85) & (np.hypot(x, (y - 0.1) * 0.9) > 0.5)
    hair = cv2.GaussianBlur(ring.astype(np.float32), (0, 0), 2)
    images = rng.integers(0, 256, (count, 256, 256, 3)).astype(np.uint8)
    return images, np.repeat(hair[None], count, 0)


def documented_ombres(images: Rgb, hair: NDArray[np.float32], colors: NDArray[np.float64]) -> Rgb:
    """Picture after picture."""
    shown = zip(images, hair, colors, strict=True)
    return np.stack([documented_ombre(image, one, color, HEIGHT, GRAD) for image, one, color in shown])


def differing(made: Rgb, wanted: Rgb) -> Facts:
    difference = np.abs(made.astype(np.int16) - wanted)
    return {"max_levels": float(difference.max()), "share_differing": float((difference > 0).mean())}


def differences(made: NDArray[np.float64], wanted: NDArray[np.float64]) -> Facts:
    """Largest difference of scores, and how many only one of the two has."""
    only_one = float((np.isnan(made) != np.isnan(wanted)).sum())
    return {"max_difference": float(np.nanmax(np.abs(made - wanted))), "cells_only_in_one": only_one}


def forms(
    call: Callable[[Backend], Any], facts: Callable[[Backend], Facts], units: int, goal: float | None
) -> dict[str, Work]:
    """The kernel by each backend."""
    backends: dict[str, Backend] = {"NumPy reference": "reference", "Numba": "cpu"}
    return {
        name: Work(partial(call, backend), units, partial(facts, backend), goal if backend == "cpu" else None)
        for name, backend in backends.items()
    }


def ombre_batch() -> Group:
    images, hair = scene(OMBRE_BATCH)
    colors, few = np.full(OMBRE_BATCH, COLOR), 8
    wanted = documented_ombres(images, hair, colors)

    def dyed(backend: Backend) -> Rgb:
        return apply_ombre(images, hair, COLOR, HEIGHT, GRAD, backend=backend)

    works = {"documented NumPy": Work(lambda: documented_ombres(images[:few], hair[:few], colors[:few]), few)}
    works |= forms(dyed, lambda backend: differing(dyed(backend), wanted), OMBRE_BATCH, GOALS["ombre"])
    return Group("kernels", f"ombre, batch of {OMBRE_BATCH}, hair maps of 224", "picture", works, "documented NumPy")


def ombre_sweep() -> Group:
    images, hair = scene(1)
    colors, mask, few = np.arange(SWEEP) / SWEEP, prepare_hair(hair, (256, 256)), 4
    many, hairs = np.repeat(images, SWEEP, 0), np.repeat(hair, SWEEP, 0)
    wanted = documented_ombres(many, hairs, colors)

    def dyed(backend: Backend) -> Rgb:
        return blend_ombre(images, mask, colors, HEIGHT, GRAD, backend=backend)

    works = {"documented NumPy": Work(lambda: documented_ombres(many[:few], hairs[:few], colors[:few]), few)}
    works |= forms(dyed, lambda backend: differing(dyed(backend), wanted), SWEEP, None)
    return Group("kernels", f"ombre, {SWEEP} dyes of one picture", "picture", works, "documented NumPy")


def scores(algorithm: Algorithm) -> Group:
    """Of painted portraits, no two equal."""
    faces = batch(*painted(), 0, SCORE_BATCH)
    few = faces[0][:SAMPLE], faces[1][:SAMPLE]
    wanted = documented(algorithm, *few)
    works = {"documented loops": Work(lambda: documented(algorithm, *few), SAMPLE)}
    works |= forms(
        lambda backend: score(*faces, algorithm=algorithm, backend=backend),
        lambda backend: differences(score(*few, algorithm=algorithm, backend=backend), wanted),
        SCORE_BATCH,
        GOALS.get(algorithm),
    )
    return Group("kernels", f"scores {algorithm}, batch of {SCORE_BATCH}", "face", works, "documented loops")
