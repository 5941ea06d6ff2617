"""Progress on a terminal (bar, images/s, ETA) or as plain lines in a log; always on standard error."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any

LINE_EVERY_S = 10.0


class Progress:
    """Counts finished items from any thread."""

    def __init__(self, total: int, noun: str) -> None:
        self.total, self.noun, self.done = total, noun, 0
        self._started = self._shown = time.monotonic()
        self._lock = threading.Lock()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr is not None and sys.stderr.isatty():  # None: there is nobody to tell
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn(self.noun),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:.1f}/s"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.noun, total=self.total, rate=0.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def expect(self, total: int) -> None:
        """How many there are, where this is known later than the noun."""
        self.total = max(total, 1)
        if self._bar is not None:
            self._bar.update(self._task, total=self.total)

    def advance(self, count: int) -> None:
        with self._lock:
            self.done += count
            if self._bar is not None:
                self._bar.update(self._task, advance=count, rate=self.rate)
            elif sys.stderr is not None and time.monotonic() - self._shown >= LINE_EVERY_S:
                self._shown = time.monotonic()
                eta = (self.total - self.done) / self.rate if self.rate else 0.0
                print(
                    f"{self.done}/{self.total} {self.noun}, {self.rate:.1f}/s, {eta:.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        return self.done / max(self.seconds, 1e-9)
