"""Batches made ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ohlora.training.loop.prefetch import prefetched


def test_same_batches_in_the_same_order() -> None:
    assert list(prefetched(range(50))) == list(range(50))


def test_no_more_are_made_than_asked_for() -> None:
    made: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    ahead = prefetched(batches(), depth=2)
    assert next(ahead) == 0
    ahead.close()  # type: ignore[attr-defined]
    assert len(made) <= 5
    assert not [thread for thread in threading.enumerate() if thread.name == "ohlora-batches"]


def test_what_making_them_raises_is_raised() -> None:
    def batches() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    ahead = prefetched(batches())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="gone"):
        next(ahead)
