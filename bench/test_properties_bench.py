"""Property scores: the documents' loops, reference and compiled form, in one run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the train extra draws the portraits that are scored")

from ohlora.bench.baselines.properties import documented
from ohlora.bench.runner.scenes import batch, painted
from ohlora.bench.suites.kernels import SAMPLE, SCORE_BATCH
from ohlora.kernels.choices import Algorithm, Backend
from ohlora.kernels.properties import ALGORITHMS, score


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_documented(benchmark: Any, algorithm: Algorithm, rounds: int) -> None:
    benchmark.group = f"scores {algorithm}, {SAMPLE} faces"
    parsing, images = batch(*painted(), 0, SAMPLE)
    made = benchmark.pedantic(lambda: documented(algorithm, parsing, images), rounds=rounds)
    assert np.allclose(made, score(parsing, images, algorithm=algorithm), rtol=1e-11, equal_nan=True)


@pytest.mark.parametrize("count", [SAMPLE, SCORE_BATCH])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_score(benchmark: Any, algorithm: Algorithm, backend: Backend, count: int, rounds: int) -> None:
    benchmark.group = f"scores {algorithm}, {count} faces"
    parsing, images = batch(*painted(), 0, count)
    benchmark.pedantic(
        lambda: score(parsing, images, algorithm=algorithm, backend=backend), rounds=rounds, warmup_rounds=1
    )
