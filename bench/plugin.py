"""Options of the benches: `pytest --pyargs ohlora.bench --bundle MY`. Loaded by every pytest, so it is light."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ohlora", "benches of ohlora")
    options = (
        ("--bundle", {"default": "demo", "help": "bundle to measure: a folder, or demo"}),
        ("--presets", {"default": "", "help": "measure it at these: exact,balanced,fast (needs the train extra)"}),
        ("--full-size", {"action": "store_true", "help": "measure a generator of the published size instead"}),
    )
    for name, settings in options:
        try:
            group.addoption(name, **settings)
        except ValueError:  # another plugin has an option of that name: its users' tests come first
            continue
