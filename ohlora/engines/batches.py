"""The engine class of devices: calls are cut into buckets of one fixed size, the last filled up with its last row.

A row therefore meets the same kernels whatever the batch around it (docs/design.md, section 2); whether its place in
the bucket matters, the self-test at load finds out.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ohlora.engines.selftest import load_probe, run_selftest
from ohlora.engines.spec import EngineSpec, check_inputs
from ohlora.errors import EngineError

Arrays = dict[str, NDArray[Any]]


class BatchRunner(Protocol):
    """Computes exactly `bucket` rows. Called by one thread at a time."""

    bucket: int

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        """Read arrays [bucket, ...] from `inputs`, write arrays [bucket, ...] of `outputs`."""

    def close(self) -> None: ...


class BatchEngine:
    """An opened engine; see `ohlora.engines.Engine`. `runner` is the device's side of it."""

    threads = 1
    cached = False

    def __init__(
        self, name: str, spec: EngineSpec, runner: BatchRunner, *, backend: str, precision: str, model_sha256: str
    ) -> None:
        self.name, self.spec, self.runner = name, spec, runner
        self.backend, self.precision, self.model_sha256 = backend, precision, model_sha256
        self.reason = ""
        self.selftest: dict[str, Any] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"ohlora-{backend}")
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, **inputs: Any) -> Arrays:
        """Compute N rows; returns arrays [N, ...] by output name. N = 0 gives empty arrays.

        Raises EngineError naming the input when a name, dtype or shape is wrong or a float is not finite.
        """
        return self.submit(**inputs).result()

    def submit(self, **inputs: Any) -> Future[Arrays]:
        """Start a call and return at once. The inputs must stay unchanged until the future is done."""
        arrays, rows = check_inputs(self.spec, inputs, f"engine {self.name}")
        with self._lock:
            if self._closed:
                raise EngineError(f"engine {self.name} is closed: open it again")
            return self._pool.submit(self._compute, arrays, rows)

    def _compute(self, inputs: Arrays, rows: int) -> Arrays:
        outputs = {t.name: np.empty((rows, *t.row_shape), t.dtype) for t in self.spec.outputs}
        bucket = self.runner.bucket
        try:
            for start in range(0, rows, bucket):
                stop = min(start + bucket, rows)
                given = {name: filled(array[start:stop], bucket) for name, array in inputs.items()}
                if stop - start == bucket:
                    self.runner(given, {name: array[start:stop] for name, array in outputs.items()})
                    continue
                made = {t.name: np.empty((bucket, *t.row_shape), t.dtype) for t in self.spec.outputs}
                self.runner(given, made)
                for name, array in outputs.items():
                    array[start:stop] = made[name][: stop - start]
        except EngineError:
            raise
        except Exception as error:  # whatever a driver raises has to reach the caller as one kind
            raise EngineError(f"engine {self.name} ({self.backend}) failed: {error}") from error
        return outputs

    def close(self) -> None:
        """Wait for running calls, then free the device's memory. Calls after that raise EngineError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._pool.shutdown(wait=True)
        self.runner.close()

    def __enter__(self) -> BatchEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<engine {self.name}: {self.backend} {self.precision}, buckets of {self.runner.bucket}>"


def tested(engine: BatchEngine, reason: str, probe: Any) -> BatchEngine:
    """`engine` after its self-test; closed when that fails. probe: as `selftest.load_probe` takes it, or None."""
    engine.reason = reason
    try:
        engine.selftest = run_selftest(engine, None if probe is None else load_probe(probe))
    except EngineError:
        engine.close()
        raise
    return engine


def filled(rows: NDArray[Any], bucket: int) -> NDArray[Any]:
    """`rows` [n, ...] with its last row repeated until there are `bucket`."""
    missing = bucket - len(rows)
    return rows if missing == 0 else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
