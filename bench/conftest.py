"""What all benches share: they skip without pytest-benchmark, and --benchmark-min-rounds is how many rounds they do."""

from __future__ import annotations

import pytest

NOT_LOADED = "pytest-benchmark is not loaded: install it, and leave out -p no:benchmark"


def loaded(config: pytest.Config) -> bool:
    """Whether pytest-benchmark takes part."""
    return config.getoption("benchmark_min_rounds", default=None) is not None


def pytest_configure(config: pytest.Config) -> None:
    if not loaded(config):  # strict markers
        config.addinivalue_line("markers", "benchmark: settings of pytest-benchmark")


def pytest_itemcollected(item: pytest.Item) -> None:
    if not loaded(item.config):
        item.add_marker(pytest.mark.skip(reason=NOT_LOADED))


@pytest.fixture
def rounds(pytestconfig: pytest.Config) -> int:
    """As many as --benchmark-min-rounds says, 5 without it."""
    return int(pytestconfig.getoption("benchmark_min_rounds"))
