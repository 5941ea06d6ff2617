"""Options of the benches: `pytest --pyargs ohlora.bench --ohlora-bundle MY`. Loaded by every pytest, so it is light.

The names begin with ours, since pytest refuses to start when two plugins add an option of one name.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    add = parser.getgroup("ohlora", "benches of ohlora").addoption
    add("--ohlora-bundle", default="demo", help="bundle to measure: a folder, or demo")
    add("--ohlora-presets", default="", help="measure it at these: exact,balanced,fast (needs the train extra)")
    add("--ohlora-full-size", action="store_true", help="measure a generator of the published size instead")
