"""Running TensorRT engines: buffers once, one CUDA graph per engine, nothing copied that lies on the device already.

An engine takes its profile's batches, but every call here has the same one, the profile's OPT (`batches.BatchEngine`):
a row then never depends on how many others came with it. Whether equal rows give equal results is tested at load.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.engines.batches import BatchEngine
from ohlora.engines.gpu.cuda_runtime import ON_DEVICE, TO_DEVICE, TO_HOST, CudaRuntime, load_runtime
from ohlora.engines.gpu.device_memory import DeviceBuffer
from ohlora.engines.gpu.tensorrt_sidecar import Sidecar, read_engine
from ohlora.engines.selftest import ProbeSource, with_selftest
from ohlora.engines.spec import Arrays, TensorSpec
from ohlora.errors import EngineError


class TensorRtRunner:
    """One execution context with its buffers. context: TensorRT's; runtime: CUDA's."""

    def __init__(self, context: Any, runtime: CudaRuntime, sidecar: Sidecar, device: int) -> None:
        self.spec, self.bucket, self.device = sidecar.spec, sidecar.batch[1], device
        self._context, self._runtime = context, runtime
        runtime.use(device)
        self._stream = runtime.new_stream()
        self._on_device: dict[str, DeviceBuffer] = {}
        self._on_host: dict[str, NDArray[Any]] = {}
        self._pinned: list[int] = []
        for tensor in self.spec.tensors:
            self._allocate(tensor)
        for tensor in self.spec.inputs:
            context.set_input_shape(tensor.name, (self.bucket, *tensor.row_shape))
        self._graph = self._record()

    def _allocate(self, tensor: TensorSpec) -> None:
        shape = (self.bucket, *tensor.row_shape)
        size = int(np.prod(shape)) * np.dtype(tensor.dtype).itemsize
        buffer = DeviceBuffer(self._runtime.allocate(size), shape, tensor.dtype, self._stream)
        self._on_device[tensor.name] = buffer
        pinned = self._runtime.allocate_host(size)
        self._pinned.append(pinned)
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pinned))
        self._on_host[tensor.name] = raw.view(tensor.dtype).reshape(shape)
        self._context.set_tensor_address(tensor.name, buffer.pointer)

    def _record(self) -> int:
        """The engine's launches as one graph; TensorRT wants to have run once before they are recorded."""
        self._enqueue()
        self._runtime.wait(self._stream)
        self._runtime.record(self._stream)
        self._enqueue()
        return self._runtime.recorded(self._stream)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise EngineError("TensorRT could not start the engine")

    def run_device(self, inputs: Mapping[str, Any]) -> dict[str, DeviceBuffer]:
        """Objects with `__cuda_array_interface__`, [bucket, ...] -> output buffers, which the next call overwrites.

        Nothing waits: results are ready when the stream that a buffer names has come so far. An input that is the
        engine's own buffer (`buffer(name)`) is not copied. Raises EngineError for another shape, type or layout.
        """
        for tensor in self.spec.inputs:
            given, buffer = inputs[tensor.name].__cuda_array_interface__, self._on_device[tensor.name]
            pointer = _checked(tensor, given, buffer)
            if pointer != buffer.pointer:
                self._runtime.copy(buffer.pointer, pointer, buffer.size, ON_DEVICE, self._stream)
        self._runtime.launch(self._graph, self._stream)
        return {tensor.name: self._on_device[tensor.name] for tensor in self.spec.outputs}

    def buffer(self, name: str) -> DeviceBuffer:
        return self._on_device[name]

    def launch(self, stream: int) -> None:
        self._runtime.launch(self._graph, stream)

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        runtime, stream = self._runtime, self._stream
        runtime.use(self.device)
        for name, array in inputs.items():
            self._on_host[name][...] = array
            buffer = self._on_device[name]
            runtime.copy(buffer.pointer, self._on_host[name].ctypes.data, buffer.size, TO_DEVICE, stream)
        runtime.launch(self._graph, stream)
        for name in outputs:
            buffer = self._on_device[name]
            runtime.copy(self._on_host[name].ctypes.data, buffer.pointer, buffer.size, TO_HOST, stream)
        runtime.wait(stream)
        for name, array in outputs.items():
            array[...] = self._on_host[name]

    def close(self) -> None:
        runtime = self._runtime
        runtime.wait(self._stream)
        runtime.end_graph(self._graph)
        for buffer in self._on_device.values():
            runtime.free(buffer.pointer)
        self._on_host.clear()
        for pinned in self._pinned:
            runtime.free_host(pinned)
        runtime.end_stream(self._stream)
        self._context = None


def _checked(tensor: TensorSpec, given: Mapping[str, Any], buffer: DeviceBuffer) -> int:
    shape, kind = tuple(given["shape"]), np.dtype(given["typestr"])
    if shape != buffer.shape or kind != np.dtype(buffer.dtype) or given.get("strides") is not None:
        laid = "" if given.get("strides") is None else ", not contiguous"
        raise EngineError(
            f"input '{tensor.name}' must be contiguous {buffer.dtype} {list(buffer.shape)} on the device, got {kind} "
            f"{list(shape)}{laid}"
        )
    return int(given["data"][0])


def check_usable(sidecar: Sidecar, version: str, capability: str, engine: Path) -> None:
    """Raises EngineError for an engine of another version or device."""
    remedy = "build it again here (`ohlora export --to tensorrt`)"
    if sidecar.version != version:
        raise EngineError(f"{engine} was built by {sidecar.package} {sidecar.version}, here is {version}: {remedy}")
    if capability not in sidecar.compute_capabilities:
        built = ", ".join(sidecar.compute_capabilities)
        raise EngineError(f"{engine} is for compute capability {built}, this GPU has {capability}: {remedy}")


def open_tensorrt(path: Path | str, *, device: int = 0, probe: ProbeSource | None = None) -> BatchEngine:
    """Load a built engine onto GPU `device` and test it. `engine.runner.run_device` computes without the host.

    Raises EngineError: no sidecar, a damaged or foreign engine, no package, no GPU, a failed self-test.
    """
    path = Path(path)
    sidecar, data = read_engine(path)
    if importlib.util.find_spec(sidecar.package) is None:
        raise EngineError(f"{path} needs {sidecar.package} {sidecar.version}: pip install it")
    trt = importlib.import_module(sidecar.package)
    runtime = load_runtime()
    runtime.use(device)
    check_usable(sidecar, trt.__version__, runtime.capability(device), path)
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(data)
    if engine is None:
        raise EngineError(f"{path} cannot be loaded by {sidecar.package} {trt.__version__}: build it again here")
    runner = TensorRtRunner(engine.create_execution_context(), runtime, sidecar, device)
    opened = BatchEngine(
        path.name, runner, backend="tensorrt", precision=sidecar.precision, model_sha256=sidecar.model_sha256
    )
    return with_selftest(opened, probe, f"tensorrt: built for {', '.join(sidecar.compute_capabilities)}")
