"""The ombre and score kernels against the documented NumPy and Python, on arrays in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.bench.baselines.ombre import documented_ombre
from ohlora.bench.baselines.properties import DOCUMENTED
from ohlora.bench.runner.scenes import batch, painted
from ohlora.bench.runner.timing import Facts, Group, Work
from ohlora.bench.suites.options import Options
from ohlora.kernels.choices import Algorithm, Backend
from ohlora.kernels.ombre import apply_ombre, blend_ombre, prepare_hair
from ohlora.kernels.properties import ALGORITHMS, score

Bytes = NDArray[np.uint8]
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


def scene(count: int) -> tuple[Bytes, NDArray[np.float32]]:
    """Pictures uint8 [N,256,256,3] and hair maps float32 [N,224,224] with hair on a third of the area, both sides."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-1:1:224j, -1:1:224j]
    ring = (np.hypot(x, y * 0.8) < 0.85) & (np.hypot(x, (y - 0.1) * 0.9) > 0.5)
    hair = cv2.GaussianBlur(ring.astype(np.float32), (0, 0), 2)
    images = rng.integers(0, 256, (count, 256, 256, 3)).astype(np.uint8)
    return images, np.repeat(hair[None], count, 0)


def documented_ombres(images: Bytes, hair: NDArray[np.float32], colors: NDArray[np.float64]) -> Bytes:
    """Picture after picture."""
    shown = zip(images, hair, colors, strict=True)
    return np.stack([documented_ombre(image, one, color, HEIGHT, GRAD) for image, one, color in shown])


def differing(made: Callable[[], Bytes], wanted: Bytes) -> Callable[[], Facts]:
    def facts() -> Facts:
        difference = np.abs(made().astype(np.int16) - wanted)
        return {"max_levels": float(difference.max()), "share_differing": float((difference > 0).mean())}

    return facts


def ombre_batch() -> Group:
    images, hair = scene(OMBRE_BATCH)
    colors = np.full(OMBRE_BATCH, COLOR)
    few = 8
    wanted = documented_ombres(images, hair, colors)
    forms = {
        name: (lambda backend=backend: apply_ombre(images, hair, COLOR, HEIGHT, GRAD, backend=backend))
        for name, backend in (("NumPy reference", "reference"), ("Numba", "cpu"))
    }
    works = {"documented NumPy": Work(lambda: documented_ombres(images[:few], hair[:few], colors[:few]), few)}
    for name, form in forms.items():
        goal = GOALS["ombre"] if name == "Numba" else None
        works[name] = Work(form, OMBRE_BATCH, differing(form, wanted), goal)
    return Group("kernels", f"ombre, batch of {OMBRE_BATCH}, hair maps of 224", "picture", works, "documented NumPy")


def ombre_sweep() -> Group:
    images, hair = scene(1)
    colors = np.arange(SWEEP) / SWEEP
    mask = prepare_hair(hair, (256, 256))
    few = 4
    repeated = np.repeat(images, SWEEP, 0), np.repeat(hair, SWEEP, 0)
    wanted = documented_ombres(*repeated, colors)
    works = {
        "documented NumPy": Work(
            lambda: documented_ombres(repeated[0][:few], repeated[1][:few], colors[:few]), few
        )
    }  # fmt: skip
    for name, backend in (("NumPy reference", "reference"), ("Numba", "cpu")):
        form = lambda backend=backend: blend_ombre(images, mask, colors, HEIGHT, GRAD, backend=backend)  # noqa: E731
        works[name] = Work(form, SWEEP, differing(form, wanted))
    return Group("kernels", f"ombre, {SWEEP} dyes of one picture", "picture", works, "documented NumPy")


def scores(algorithm: Algorithm) -> Group:
    parsing, images = score_scenes(SCORE_BATCH)
    wanted = np.array([DOCUMENTED[algorithm](p, i) for p, i in zip(parsing[:SAMPLE], images[:SAMPLE], strict=True)])

    def documented() -> None:
        for one, image in zip(parsing[:SAMPLE], images[:SAMPLE], strict=True):
            DOCUMENTED[algorithm](one, image)

    def accuracy(backend: Backend) -> Callable[[], Facts]:
        def facts() -> Facts:
            made = score(parsing[:SAMPLE], images[:SAMPLE], algorithm=algorithm, backend=backend)
            only_one = float((np.isnan(made) != np.isnan(wanted)).sum())
            return {"max_difference": float(np.nanmax(np.abs(made - wanted))), "cells_only_in_one": only_one}

        return facts

    works = {"documented loops": Work(documented, SAMPLE)}
    name: str
    backend: Backend
    for name, backend in (("NumPy reference", "reference"), ("Numba", "cpu")):
        form = lambda backend=backend: score(parsing, images, algorithm=algorithm, backend=backend)  # noqa: E731
        works[name] = Work(form, SCORE_BATCH, accuracy(backend), GOALS.get(algorithm) if name == "Numba" else None)
    return Group("kernels", f"scores {algorithm}, batch of {SCORE_BATCH}", "face", works, "documented loops")


def score_scenes(count: int) -> tuple[Bytes, Bytes]:
    """Class maps uint8 [N,224,224] and pictures [N,224,224,3] of painted portraits, no two equal."""
    return batch(*painted(), 0, count)
