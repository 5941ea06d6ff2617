"""The one engine class: a network compiled for batch 1, run on the rows of a call by parallel threads.

A row therefore meets the same machine code, on one thread, whatever the batch around it: its result is
bit-identical by construction. Batched kernels, whose tiling follows N and the thread count, never promise it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ohlora.engines.spec import Arrays, Engine, EngineSpec, never_freed
from ohlora.errors import EngineError


class Runner(Protocol):
    """Computes one row. Each runner is used by one thread at a time and owns its buffers."""

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        """Read row views [1, ...] from `inputs`, write row views [1, ...] of `outputs`."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a backend hands over: as many runners as rows may be computed at once.

    threaded: runners have threads of their own, which freeing them would wait for; a forked process lacks these.
    """

    spec: EngineSpec
    runners: Sequence[Runner]
    cached: bool = False
    threaded: bool = False


class RowEngine(Engine):
    """A network on the host. Row i is bit-identical whatever N, i, its neighbours and `threads`.

    compile_again: what `compiled` came from; called in a forked process, where the runners' threads are missing.
    """

    def __init__(
        self, name: str, compiled: Compiled, *, backend: str, precision: str, model_sha256: str,
        compile_again: Callable[[], Compiled],
    ) -> None:  # fmt: skip
        super().__init__(
            name, compiled.spec, backend=backend, precision=precision, model_sha256=model_sha256,
            threads=len(compiled.runners), cached=compiled.cached,
        )  # fmt: skip
        self._compile_again, self._threaded = compile_again, compiled.threaded
        self._take(compiled.runners)

    def _take(self, runners: Sequence[Runner]) -> None:
        self._runners, self._idle = runners, queue.SimpleQueue[Runner]()
        for runner in runners:
            self._idle.put(runner)

    def _after_fork(self) -> None:
        super()._after_fork()
        for runner in self._runners if self._threaded else ():
            never_freed(runner)
        self._take(())

    def _reopen(self) -> None:
        self._take(self._compile_again().runners)

    def _start(self, inputs: Arrays, rows: int) -> Future[Arrays]:
        workers = min(rows, self.threads)
        job = _Job(inputs, self.spec.results(rows), iter(range(rows)), workers)
        job.future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
        for _ in range(workers):
            self._pool.submit(self._work, job)
        if workers == 0:
            job.future.set_result(job.outputs)
        return job.future

    def _work(self, job: _Job) -> None:
        runner = self._idle.get()
        try:
            for row in job.rows:
                if job.error is not None:
                    break
                here = slice(row, row + 1)
                runner(_rows(job.inputs, here), _rows(job.outputs, here))
        except Exception as error:  # whatever a backend raises has to reach the caller, not this thread
            job.error = EngineError(f"engine {self.name} ({self.backend}) failed: {error}")
            job.error.__cause__ = error
        finally:
            self._idle.put(runner)
            job.leave()

    def _free(self) -> None:
        self._take(())


@dataclass(slots=True)
class _Job:
    """One call. Workers draw row numbers from one iterator (`next` on it is atomic) until it is empty."""

    inputs: Arrays
    outputs: Arrays
    rows: Iterator[int]
    workers: int
    error: EngineError | None = None
    future: Future[Arrays] = field(default_factory=Future)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def leave(self) -> None:
        with self.lock:
            self.workers -= 1
            last = self.workers == 0
        if last and self.error is not None:
            self.future.set_exception(self.error)
        elif last:
            self.future.set_result(self.outputs)


def _rows(arrays: Mapping[str, NDArray[Any]], rows: slice) -> Arrays:
    return {name: array[rows] for name, array in arrays.items()}


def aligned_zeros(shape: tuple[int, ...], dtype: str, boundary: int = 64) -> NDArray[Any]:
    """Zeros whose data start at a multiple of `boundary` bytes.

    A row's address inside a batch depends on its position, and vectorised sums may start at the first aligned
    element: runners copy rows to such buffers so that the address cannot show in the result.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + boundary, np.uint8)
    start = -raw.ctypes.data % boundary
    return raw[start : start + size].view(dtype).reshape(shape)
