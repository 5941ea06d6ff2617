"""Progress of a stage as lines, one every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ohlora.training.pipeline.graph import Note

EVERY_S = 10.0


def counter(note: Note, total: int, noun: str) -> Callable[[int], None]:
    """A function that is told how many more are done, and says so now and then."""
    state = {"done": 0, "shown": time.monotonic(), "began": time.monotonic()}

    def advance(count: int) -> None:
        state["done"] += count
        now = time.monotonic()
        if now - state["shown"] >= EVERY_S:
            state["shown"] = now
            rate = state["done"] / max(now - state["began"], 1e-9)
            note(f"{int(state['done'])}/{total} {noun}, {rate:.1f}/s")

    return advance


def rows(note: Note, line: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], None]:
    """A function that is told events of a training, and shows one every few seconds."""
    state = {"shown": 0.0}

    def report(row: dict[str, Any]) -> None:
        text, now = line(row), time.monotonic()
        if text and now - state["shown"] >= EVERY_S:
            state["shown"] = now
            note(text)

    return report
