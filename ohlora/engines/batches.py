"""The engine class of devices: calls are cut into buckets of one fixed size, the last filled up with its last row.

A row therefore meets the same kernels whatever the batch around it (docs/design.md, section 2); whether its place in
the bucket matters, the self-test at load finds out.
"""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ohlora.engines.model_file import ModelFile, read_model_file
from ohlora.engines.spec import Arrays, Engine, EngineSpec
from ohlora.errors import EngineError


class BatchRunner(Protocol):
    """Computes exactly `bucket` rows of a network. Called by one thread at a time."""

    spec: EngineSpec
    bucket: int

    def buffer(self, name: str) -> Any:
        """Memory of an input or output, [bucket, ...], with `__cuda_array_interface__`."""

    def launch(self, stream: int) -> None:
        """Put a run from buffers to buffers on a stream, by its address. Nothing waits."""

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        """Read arrays [bucket, ...] from `inputs`, write arrays [bucket, ...] of `outputs`."""

    def close(self) -> None: ...


class BatchEngine(Engine):
    """A network on a device. `runner` is the device's side of it."""

    def __init__(self, name: str, runner: BatchRunner, *, backend: str, precision: str, model_sha256: str) -> None:
        super().__init__(name, runner.spec, backend=backend, precision=precision, model_sha256=model_sha256)
        self.runner = runner

    def _start(self, inputs: Arrays, rows: int) -> Future[Arrays]:
        return self._pool.submit(self._compute, inputs, rows)

    def _compute(self, inputs: Arrays, rows: int) -> Arrays:
        outputs, bucket = self.spec.results(rows), self.runner.bucket
        try:
            for start in range(0, rows, bucket):
                stop = min(start + bucket, rows)
                batch = {name: filled(array[start:stop], bucket) for name, array in inputs.items()}
                if stop - start == bucket:
                    self.runner(batch, {name: array[start:stop] for name, array in outputs.items()})
                    continue
                results = self.spec.results(bucket)
                self.runner(batch, results)
                for name, array in outputs.items():
                    array[start:stop] = results[name][: stop - start]
        except EngineError:
            raise
        except Exception as error:  # whatever a driver raises has to reach the caller as one kind
            raise EngineError(f"engine {self.name} ({self.backend}) failed: {error}") from error
        return outputs

    def _free(self) -> None:
        self.runner.close()

    def __repr__(self) -> str:
        return f"<engine {self.name}: {self.backend} {self.precision}, buckets of {self.runner.bucket}>"


def model_for_buckets(path: Path | str | ModelFile, bucket: int) -> ModelFile:
    """An ONNX file whose rows may be computed `bucket` at a time. Raises EngineError for anything else."""
    if bucket < 1:
        raise EngineError(f"a bucket has at least one row, got {bucket}")
    model = read_model_file(path)
    model.require_independent_rows()
    return model


def filled(rows: NDArray[Any], bucket: int) -> NDArray[Any]:
    """`rows` [n, ...] with its last row repeated until there are `bucket`."""
    missing = bucket - len(rows)
    return rows if missing == 0 else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
