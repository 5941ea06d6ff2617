"""The pipeline alone, with pictures and files replaced by counters."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohlora.base.values import Ombre
from ohlora.errors import ImageError, OutputError
from ohlora.faces import SeedRange
from ohlora.render.job import RenderJob, make_looks
from ohlora.render.pipeline import Results, run
from ohlora.render.plan import Output, PortraitPlan, PortraitUnit
from ohlora.render.sinks import Picture


class Counter:
    """Producer, writer and record in one; remembers how many units were ever under way."""

    def __init__(
        self,
        bad_faces: set[int] = frozenset(),
        full_at: int | None = None,
        slow: float = 0.0,
        calls: tuple[int, int] | None = None,
    ) -> None:
        self.of_a_call = calls
        self.bad_faces, self.full_at, self.slow = bad_faces, full_at, slow
        self.lock = threading.Lock()
        self.left: dict[int, int] = {}
        self.most = 0
        self.rows: dict[int, dict[str, Any]] = {}
        self.failures: dict[int, str] = {}
        self.runs = 0

    def calls(self, batch: int) -> tuple[int, int]:
        return self.of_a_call or (max(1, batch // 2), 1)

    def produce(self, units: Sequence[PortraitUnit]) -> list[Picture | ImageError]:
        with self.lock:
            self.runs += len(units)
            for unit in units:
                if unit.face not in self.bad_faces:
                    self.left[unit.face] = len(unit.outputs)
            self.most = max(self.most, len(self.left))
        image = np.zeros((2, 2, 3), np.uint8)
        return [
            ImageError(f"face {u.face}") if u.face in self.bad_faces else Picture(image, {"face": u.face})
            for u in units
        ]

    def write(self, picture: Picture, output: Output) -> dict[str, Any]:
        time.sleep(self.slow)
        if self.full_at is not None and output.item >= self.full_at:
            raise OutputError("the disk is full")
        with self.lock:
            face = picture.facts["face"]
            self.left[face] -= 1
            if not self.left[face]:
                del self.left[face]
        return {"file_name": output.file_name, "dyed": True}

    def record(self, item: int, row: dict[str, Any]) -> None:
        assert item not in self.rows
        self.rows[item] = row

    def record_failure(self, item: int, message: str) -> None:
        self.failures[item] = message


def do(counter: Counter, faces: int, dyes: int, batch: int, workers: int) -> Results:
    plan = PortraitPlan(RenderJob(SeedRange(0, faces - 1), make_looks(None, [Ombre(i / dyes) for i in range(dyes)])))
    results = Results(counter)
    run(plan.units(range(len(plan))), counter, counter, results, batch=batch, workers=workers)
    return results


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 20),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sets(st.integers(0, 11)),
    st.sampled_from([None, (1, 1), (1, 3)]),
)
def test_everything_is_done_once_within_the_window(
    faces: int, dyes: int, batch: int, workers: int, bad: set[int], calls: tuple[int, int] | None
) -> None:
    counter = Counter(bad_faces=bad, calls=calls)
    totals = do(counter, faces, dyes, batch, workers)
    failing = {f for f in bad if f < faces}
    assert counter.runs == totals.units == faces
    assert totals.written == len(counter.rows) == (faces - len(failing)) * dyes
    assert set(counter.rows) | set(counter.failures) == set(range(faces * dyes))
    assert set(totals.failed) == {f * dyes + d for f in failing for d in range(dyes)}
    assert counter.most <= batch


def test_a_full_disk_stops_the_run() -> None:
    counter = Counter(full_at=7)
    with pytest.raises(OutputError, match="full"):
        do(counter, faces=50, dyes=1, batch=4, workers=2)
    assert counter.runs < 20, "work went on after the disk was full"
    assert set(counter.rows) >= set(range(5))


def test_an_interrupt_finishes_what_is_under_way() -> None:
    counter = Counter(slow=0.01)
    produce = counter.produce

    def interrupted(units: Sequence[PortraitUnit]) -> list[Picture | ImageError]:
        if units[0].face >= 6:
            raise KeyboardInterrupt
        return produce(units)

    counter.produce = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        do(counter, faces=40, dyes=2, batch=4, workers=2)
    assert counter.rows, "nothing of what was under way was recorded"
    assert max(counter.rows) < 12
