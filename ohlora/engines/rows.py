"""The one engine class: a network compiled for batch 1, run on the rows of a call by parallel threads.

A row therefore meets the same machine code, on one thread, whatever the batch around it: its result is
bit-identical by construction. Batched kernels, whose tiling follows N and the thread count, never promise it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ohlora.engines.spec import EngineSpec, check_inputs
from ohlora.errors import EngineError

Arrays = dict[str, NDArray[Any]]


class Runner(Protocol):
    """Computes one row. Each runner is used by one thread at a time and owns its buffers."""

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        """Read row views [1, ...] from `inputs`, write row views [1, ...] of `outputs`."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a backend hands over: as many runners as rows may be computed at once."""

    spec: EngineSpec
    runners: Sequence[Runner]
    cached: bool = False


class RowEngine:
    """An opened engine; see `ohlora.engines.Engine`.

    Attributes: spec, backend, precision, threads, model_sha256 (of the ONNX file), reason (one line: why this
    backend), selftest (what was measured at load), cached (whether compiling was skipped).
    """

    def __init__(self, name: str, compiled: Compiled, *, backend: str, precision: str, model_sha256: str) -> None:
        self.name, self.backend, self.precision, self.model_sha256 = name, backend, precision, model_sha256
        self.spec, self.threads, self.cached = compiled.spec, len(compiled.runners), compiled.cached
        self.reason = ""
        self.selftest: dict[str, Any] = {}
        self._idle: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for runner in compiled.runners:
            self._idle.put(runner)
        # Rows always run on these threads, never on the caller's, whose floating-point mode is not ours.
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix=f"ohlora-{backend}")
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, **inputs: Any) -> Arrays:
        """Compute N rows; returns arrays [N, ...] by output name. Safe to call from several threads.

        Row i is bit-identical whatever N, i, its neighbours and `threads`. N = 0 gives empty arrays.
        Raises EngineError naming the input when a name, dtype or shape is wrong or a float is not finite.
        """
        return self.submit(**inputs).result()

    def submit(self, **inputs: Any) -> Future[Arrays]:
        """Start a call and return at once. The inputs must stay unchanged until the future is done.

        Raises EngineError like a call does, before anything is started.
        """
        arrays, rows = check_inputs(self.spec, inputs, f"engine {self.name}")
        outputs = {t.name: np.empty((rows, *t.row_shape), t.dtype) for t in self.spec.outputs}
        workers = min(rows, self.threads)
        job = _Job(arrays, outputs, iter(range(rows)), workers)
        job.future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
        with self._lock:
            if self._closed:
                raise EngineError(f"engine {self.name} is closed: open it again")
            for _ in range(workers):
                self._pool.submit(self._work, job)
        if workers == 0:
            job.future.set_result(outputs)
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

    def close(self) -> None:
        """Wait for running calls, then free the network. Calls after that raise EngineError."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True)
        while not self._idle.empty():
            self._idle.get()

    def __enter__(self) -> RowEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<engine {self.name}: {self.backend} {self.precision}, {self.threads} threads>"


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


def aligned_empty(shape: tuple[int, ...], dtype: str, boundary: int = 64) -> NDArray[Any]:
    """Uninitialised array whose data start at a multiple of `boundary` bytes.

    A row's address inside a batch depends on its position, and vectorised sums may start at the first aligned
    element: runners copy rows to such buffers so that the address cannot show in the result.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + boundary, np.uint8)
    start = -raw.ctypes.data % boundary
    return raw[start : start + size].view(dtype).reshape(shape)
