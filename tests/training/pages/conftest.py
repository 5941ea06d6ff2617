"""The commands of the pages and a browser for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser, PageCommand


@pytest.fixture
def serve() -> Iterator[Callable[..., PageCommand]]:
    """Starts `ohlora train STAGE ...`; ends what a failed test left."""
    started: list[PageCommand] = []

    def make(*arguments: object) -> PageCommand:
        started.append(PageCommand(*map(str, arguments)))
        return started[-1]

    yield make
    for command in started:
        command.kill()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as made:
        yield made
