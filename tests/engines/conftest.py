"""What tests of engines share: a small network, pictures for it, an empty cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ohlora.engines.cache import CACHE_VARIABLE
from tests.support.small_models import SIZE, hair_model


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def hair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hair_model(tmp_path_factory.mktemp("models") / "hair.onnx")


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (9, SIZE, SIZE, 3), np.uint8)
