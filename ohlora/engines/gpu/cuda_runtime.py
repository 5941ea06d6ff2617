"""The few calls of CUDA's runtime library that an engine needs, by ctypes: no package beside TensorRT's own."""

from __future__ import annotations

import ctypes
import ctypes.util
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

from ohlora.errors import EngineError

TO_DEVICE, TO_HOST, ON_DEVICE = 1, 2, 3  # cudaMemcpyKind
_MAJOR, _MINOR = 75, 76  # cudaDevAttrComputeCapability...
_THREAD_LOCAL_CAPTURE = 1  # other threads may allocate while one records
_NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")


@cache
def load_runtime() -> CudaRuntime:
    """The library of a CUDA installation or of a package. Raises EngineError when there is none."""
    packages = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    for name in (*_NAMES, *map(str, sorted(packages.glob("*/lib/libcudart.so.*")))):
        try:
            return CudaRuntime(ctypes.CDLL(name))
        except OSError:
            continue
    raise EngineError("CUDA's runtime library is not there: pip install nvidia-cuda-runtime, or use backend openvino")


class CudaRuntime:
    """Device memory, streams and recorded graphs. Handles are plain integers. Every failed call is an EngineError."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            text = self._library.cudaGetErrorString(status)
            raise EngineError(f"CUDA: {name} failed: {text.decode() if isinstance(text, bytes) else text} ({status})")

    def _made(self, name: str, *arguments: Any) -> int:
        """The handle that a call gives."""
        handle = ctypes.c_void_p()
        self._call(name, ctypes.byref(handle), *arguments)
        return int(handle.value or 0)

    def device_count(self) -> int:
        count = ctypes.c_int()
        self._call("cudaGetDeviceCount", ctypes.byref(count))
        return count.value

    def use(self, device: int) -> None:
        """Make it this thread's device. Raises EngineError for one that is not there."""
        count = self.device_count()
        if not 0 <= device < count:
            raise EngineError(f"GPU {device} was asked for, this machine has {count}")
        self._call("cudaSetDevice", device)

    def capability(self, device: int) -> str:
        """'8.9'."""
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int()
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, device)
            numbers.append(value.value)
        return "{}.{}".format(*numbers)

    def allocate(self, size: int) -> int:
        return self._made("cudaMalloc", ctypes.c_size_t(size))

    def free(self, pointer: int) -> None:
        self._call("cudaFree", ctypes.c_void_p(pointer))

    def allocate_host(self, size: int) -> int:
        """Pinned: copies from and to it run beside kernels."""
        return self._made("cudaHostAlloc", ctypes.c_size_t(size), 0)

    def free_host(self, pointer: int) -> None:
        self._call("cudaFreeHost", ctypes.c_void_p(pointer))

    def new_stream(self) -> int:
        return self._made("cudaStreamCreateWithFlags", 1)

    def end_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def wait(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def copy(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        self._call(
            "cudaMemcpyAsync", ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size), kind,
            ctypes.c_void_p(stream),
        )  # fmt: skip

    def record(self, stream: int) -> None:
        """What is put on the stream from here on is recorded, not run."""
        self._call("cudaStreamBeginCapture", ctypes.c_void_p(stream), _THREAD_LOCAL_CAPTURE)

    def recorded(self, stream: int) -> int:
        """Ends `record`; the graph, ready to `launch`."""
        graph = ctypes.c_void_p()
        self._call("cudaStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        ready = self._made("cudaGraphInstantiateWithFlags", graph, ctypes.c_ulonglong(0))
        self._call("cudaGraphDestroy", graph)
        return ready

    def launch(self, graph: int, stream: int) -> None:
        self._call("cudaGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def end_graph(self, graph: int) -> None:
        self._call("cudaGraphExecDestroy", ctypes.c_void_p(graph))


def compute_capability(device: int) -> str:
    """Of a GPU of this machine, '8.9'. Raises EngineError without a driver or GPU."""
    try:
        runtime = load_runtime()
        runtime.use(device)
        return runtime.capability(device)
    except EngineError as error:
        raise EngineError(
            f"no GPU to build for here ({error}): name the one that the engine is for with --compute-capability"
        ) from error
