"""Ombre kernel: documented way, reference and compiled form, in one run."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from ohlora.bench.baselines import documented_ombre
from ohlora.kernels.ombre import apply_ombre, blend_ombre, prepare_hair


def scene(count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pictures with hair on about a third of the area, down both sides."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-1:1:224j, -1:1:224j]
    ring = (np.hypot(x, y * 0.8) < 0.85) & (np.hypot(x, (y - 0.1) * 0.9) > 0.5)
    hair = cv2.GaussianBlur(ring.astype(np.float32), (0, 0), 2)
    images = rng.integers(0, 256, (count, 256, 256, 3)).astype(np.uint8)
    return images, np.repeat(hair[None], count, 0)


@pytest.mark.parametrize("count", [1, 16, 64])
def test_documented(benchmark: BenchmarkFixture, count: int) -> None:
    images, hair = scene(count)
    made = benchmark(lambda: [documented_ombre(i, h, 0.5, 0.7, 0.5) for i, h in zip(images, hair, strict=True)])
    assert np.array_equal(np.stack(made), apply_ombre(images, hair, 0.5, 0.7, 0.5))


@pytest.mark.parametrize("count", [1, 16, 64])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_apply(benchmark: BenchmarkFixture, backend: str, count: int) -> None:
    images, hair = scene(count)
    benchmark(lambda: apply_ombre(images, hair, 0.5, 0.7, 0.5, backend=backend))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_sweep_of_40(benchmark: BenchmarkFixture, backend: str) -> None:
    images, hair = scene(1)
    mask = prepare_hair(hair, (256, 256))
    colors = np.arange(40) / 40
    benchmark(lambda: blend_ombre(images, mask, colors, 0.7, 0.5, backend=backend))
