"""A small bundle for the tests of bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from ohlora.engines.cache import CACHE_VARIABLE
from tests.support.small_bundle import stage, write


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "off")


@pytest.fixture(scope="session")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("staging"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, staging: Path) -> Path:
    """A good bundle; tests that damage it take a copy."""
    return write(tmp_path_factory.mktemp("bundles") / "small", staging).path
