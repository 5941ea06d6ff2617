"""Ombre kernel: documented way, reference and compiled form, in one run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ohlora.bench.baselines.ombre import documented_ombre
from ohlora.bench.suites.kernels import scene
from ohlora.kernels.choices import Backend
from ohlora.kernels.ombre import apply_ombre, blend_ombre, prepare_hair


@pytest.mark.parametrize("count", [1, 16, 64])
def test_documented(benchmark: Any, count: int) -> None:
    benchmark.group = f"ombre, {count} pictures"
    images, hair = scene(count)
    made = benchmark(lambda: [documented_ombre(i, h, 0.5, 0.7, 0.5) for i, h in zip(images, hair, strict=True)])
    assert np.array_equal(np.stack(made), apply_ombre(images, hair, 0.5, 0.7, 0.5))


@pytest.mark.parametrize("count", [1, 16, 64])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_apply(benchmark: Any, backend: Backend, count: int) -> None:
    benchmark.group = f"ombre, {count} pictures"
    images, hair = scene(count)
    benchmark(lambda: apply_ombre(images, hair, 0.5, 0.7, 0.5, backend=backend))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_sweep_of_40(benchmark: Any, backend: Backend) -> None:
    benchmark.group = "ombre, 40 dyes of one picture"
    images, hair = scene(1)
    mask = prepare_hair(hair, (256, 256))
    colors = np.arange(40) / 40
    benchmark(lambda: blend_ombre(images, mask, colors, 0.7, 0.5, backend=backend))
