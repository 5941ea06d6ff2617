"""A CUDA device that is Numba's simulator: networks run on the host, on arrays that kernels take for a device's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numba import cuda

from ohlora.engines import open_engine
from ohlora.errors import EngineError


class HostNetwork:
    """Buffers and launches of a BatchRunner over an engine of the host. room: rows beyond which there is no memory."""

    def __init__(self, engine: Any, bucket: int) -> None:
        self.engine, self.spec, self.bucket = engine, engine.spec, bucket
        self.launches = 0
        self._buffers = {
            t.name: cuda.to_device(np.zeros((bucket, *t.row_shape), t.dtype))
            for t in (*self.spec.inputs, *self.spec.outputs)
        }

    def buffer(self, name: str) -> Any:
        return self._buffers[name]

    def launch(self, stream: int) -> None:
        self.launches += 1
        inputs = {t.name: self._buffers[t.name].copy_to_host() for t in self.spec.inputs}
        for name, array in self.engine(**inputs).items():
            self._buffers[name].copy_to_device(array)


class HostDeviceEngine:
    """What `open_device_engine` gives, of the parts that chains use."""

    def __init__(self, runner: HostNetwork) -> None:
        self.runner, self.spec = runner, runner.spec
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.runner.engine.close()


class Devices:
    """Takes the place of `open_device_engine`; opened: all engines so far. room: largest bucket that fits."""

    def __init__(self, room: int = 10**9) -> None:
        self.room = room
        self.opened: list[HostDeviceEngine] = []

    def open(self, path: Path, *, bucket: int, probe: Any = None, **options: Any) -> HostDeviceEngine:
        if bucket > self.room:
            raise EngineError("CUDA: cudaMalloc failed: out of memory (2)")
        runner = HostNetwork(open_engine(path, backend="onnxruntime", threads=1, probe=probe), bucket)
        self.opened.append(HostDeviceEngine(runner))
        return self.opened[-1]
