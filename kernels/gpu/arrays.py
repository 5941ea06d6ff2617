"""Arrays that lie on a CUDA device, of whatever library: seen in place, checked, and made anew in kind.

PyTorch, CuPy, JAX, Numba and TensorRT buffers all offer `__cuda_array_interface__` or DLPack; neither copies. Work is
put on the caller's stream and nothing waits for it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged


class DeviceArray(Protocol):
    """An array of any library on a CUDA device (one that offers DLPack alone works as well)."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


class CudaUnavailableError(RuntimeError):
    """No CUDA device can be used here; says why and what to do.

    reason: the first half of it. extra: the extra of ohlora that is missing, where that is the reason.
    """

    def __init__(self, reason: str, remedy: str = "use backend 'cpu'", extra: str = "") -> None:
        missing = f"install ohlora's extra {extra}, or " if extra else ""
        super().__init__(f"{reason}: {missing}{remedy}")
        self.reason, self.extra = reason, extra


@dataclass(frozen=True)
class Place:
    """Where a kernel runs: device index and Numba's stream."""

    device: int
    stream: Any


def lies_on_device(value: Any) -> bool:
    """Whether `value` offers memory of a CUDA device. Imports nothing."""
    if isinstance(value, np.ndarray | np.generic | int | float | list | tuple):
        return False
    if getattr(value, "__cuda_array_interface__", None) is not None:
        return True
    if "numba" in sys.modules and type(value).__name__ == "FakeCUDAArray":  # the simulator's device arrays
        return True
    where = getattr(value, "__dlpack_device__", None)
    return where is not None and int(where()[0]) in _DLPACK_CUDA


@cache
def require_cuda() -> Any:
    """`numba.cuda`, ready to launch. Raises CudaUnavailableError: package, driver or device are missing or too old."""
    if importlib.util.find_spec("numba_cuda") is None and not simulated():
        raise CudaUnavailableError("numba-cuda is not installed", extra="gpu")
    from numba import cuda

    if not cuda.is_available():
        raise CudaUnavailableError(f"no CUDA device can be used ({_why(cuda)})")
    return cuda


@cache
def require_kernels(device: int) -> None:
    """Run a kernel that does nothing much: a driver that is too old for the compiler is only found out so.

    Raises CudaUnavailableError.
    """
    with on(Place(device, 0)) as cuda:

        def mark(out: Any) -> None:
            out[0] = 1

        try:
            seen = cuda.device_array(1, np.int32)
            cuda.jit(mark)[1, 1](seen)
            seen.copy_to_host()
        except Exception as error:  # the driver's and the compiler's own types
            raise CudaUnavailableError(
                f"kernels do not run on cuda:{device} ({_one_line(error)})",
                "update the driver, or for one of CUDA 12 install ohlora's extra gpu-cu12, or use backend 'cpu'",
            ) from error


def device_count() -> int:
    """CUDA devices that kernels run on, at least 1. Raises CudaUnavailableError."""
    return len(require_cuda().gpus)


def device_names() -> list[str]:
    """Name and compute capability of every device. Raises CudaUnavailableError."""
    devices = require_cuda().gpus
    if simulated():
        return ["Numba's simulator"]
    names = (device.name.decode() if isinstance(device.name, bytes) else str(device.name) for device in devices)
    return [
        f"{name} (sm {'.'.join(map(str, device.compute_capability))})"
        for name, device in zip(names, devices, strict=True)
    ]


def simulated() -> bool:
    """Whether Numba runs kernels in its simulator (NUMBA_ENABLE_CUDASIM=1)."""
    from numba import config

    return bool(config.ENABLE_CUDASIM)


def _why(cuda: Any) -> str:
    try:
        reason = cuda.cuda_error()
        cuda.current_context()
    except Exception as error:  # the driver's own types: missing, too old, no device
        reason = error
    return _one_line(str(reason or "no driver or no device").replace("Error at driver init:", "")).rstrip(" :.")


def _one_line(said: object) -> str:
    text = " ".join(str(said).split())
    return text if len(text) <= 200 else text[:197] + "..."


def device_array(name: str, value: Any, dtype: Any, shape: Sequence[int | None]) -> Any:
    """`value` as Numba sees it, not copied. shape: None where any length will do.

    Raises ValueError: memory of the host, another dtype or shape, gaps between the elements.
    """
    cuda = require_cuda()
    if not lies_on_device(value):
        raise ValueError(
            f"{name} is in the host's memory ({type(value).__name__}): copy it to the device, or use backend 'cpu'"
        )
    array = _seen(cuda, value)
    if array.dtype != np.dtype(dtype) or not fits(array.shape, shape):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(
            f"{name} must be {np.dtype(dtype)} [{wanted}], got {array.dtype} {list(array.shape)}: convert it first"
        )
    if not array.is_c_contiguous():
        raise ValueError(f"{name} has gaps between its elements: make it contiguous (row-major) first")
    return array


def fits(got: Sequence[int], wanted: Sequence[int | None]) -> bool:
    """Whether a shape is the one that is asked for; None: any length."""
    return len(got) == len(wanted) and all(w is None or g == w for g, w in zip(got, wanted, strict=True))


def _seen(cuda: Any, value: Any) -> Any:
    if simulated():
        if type(value).__name__ == "FakeCUDAArray":
            return value
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        return FakeCUDAArray(_host_view(value.__cuda_array_interface__))
    if getattr(value, "__cuda_array_interface__", None) is not None:
        return cuda.as_cuda_array(value, sync=False)
    from cuda.core.utils import StridedMemoryView

    # -1: the producer need not wait; both sides are on the caller's stream.
    view = StridedMemoryView.from_dlpack(value, stream_ptr=-1)
    dtype = np.dtype(view.dtype)
    strides = None if view.strides is None else tuple(step * dtype.itemsize for step in view.strides)
    found = {"shape": tuple(view.shape), "strides": strides, "typestr": dtype.str, "data": (view.ptr, view.readonly),
             "version": 3}  # fmt: skip
    return cuda.from_cuda_array_interface(found, owner=(value, view), sync=False)


def _host_view(interface: Mapping[str, Any]) -> NDArray[Any]:
    """The simulator's devices are the host: memory at an address, by the interface that describes it."""

    class Owner:
        __array_interface__ = {key: interface[key] for key in ("shape", "typestr", "data", "version")} | {
            "strides": interface.get("strides")
        }

    return np.asarray(Owner())


def address(array: Any) -> int:
    """Of the first byte of an array as `device_array` gives it."""
    return int(array.ctypes.data) if simulated() else int(array.device_ctypes_pointer.value or 0)


def place_of(arrays: Mapping[str, Any], stream: Any = None) -> Place:
    """The device that all `arrays` (as the caller gave them; None: not given) lie on, and the stream to use.

    stream: a stream's address, or any library's stream object; None for the one that the caller's library is on.
    Raises ValueError when they lie on several devices.
    """
    devices = {name: _device_of(array) for name, array in arrays.items() if array is not None}
    known = {device for device in devices.values() if device is not None}
    if len(known) > 1:
        told = ", ".join(f"{name} on cuda:{device}" for name, device in devices.items() if device is not None)
        raise ValueError(f"all arrays must lie on one device, got {told}")
    device = known.pop() if known else 0
    pointer = _stream_pointer(stream) if stream is not None else _current_stream(next(iter(arrays.values())), device)
    require_kernels(device)
    return Place(device, 0 if simulated() else require_cuda().external_stream(pointer))


def _device_of(array: Any) -> int | None:
    where = getattr(array, "__dlpack_device__", None)
    if where is not None:
        return int(where()[1])
    context = getattr(getattr(array, "gpu_data", None), "context", None)  # Numba's
    return None if context is None else int(context.device.id)


def _stream_pointer(stream: Any) -> int:
    if isinstance(stream, int):
        return stream
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        return int((protocol() if callable(protocol) else protocol)[1])
    for name in ("cuda_stream", "ptr", "handle"):  # PyTorch, CuPy, Numba
        value = getattr(stream, name, None)
        if value is not None:
            return int(getattr(value, "value", value) or 0)
    raise ValueError(f"stream must be a CUDA stream or its address, got {type(stream).__name__}")


def _current_stream(array: Any, device: int) -> int:
    library = type(array).__module__.partition(".")[0]
    module = sys.modules.get(library)
    if library == "torch" and module is not None:
        return int(module.cuda.current_stream(device).cuda_stream)
    if library == "cupy" and module is not None:
        return int(module.cuda.get_current_stream().ptr)
    interface = getattr(array, "__cuda_array_interface__", None) or {}
    return int(interface.get("stream") or 0)


@contextmanager
def on(place: Place) -> Iterator[Any]:
    """`numba.cuda` with `place`'s device current in this thread."""
    cuda = require_cuda()
    with cuda.gpus[place.device]:
        yield cuda


def uploaded(array: NDArray[Any], device: int) -> Any:
    """A copy on the device that is there when this returns, whichever stream reads it: for tables that are kept."""
    with on(Place(device, 0)) as cuda:
        made = cuda.to_device(array)
        cuda.synchronize()
        return made


def parts(count: int, most: int) -> list[slice]:
    """0 .. count - 1 in runs of at most `most`, for launches whose grid has a limit."""
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]


def new_array(like: Any, shape: Sequence[int], dtype: Any, place: Place) -> Any:
    """An array of `like`'s library on its device, not filled; Numba's for libraries that say nothing."""
    kind = type(like).__module__.partition(".")[0]
    module = sys.modules.get(kind)
    if kind == "torch" and module is not None:
        return like.new_empty(tuple(shape), dtype=getattr(module, np.dtype(dtype).name))
    if kind == "cupy" and module is not None:
        with module.cuda.Device(place.device):
            return module.empty(tuple(shape), dtype=dtype)
    return require_cuda().device_array(tuple(shape), dtype=np.dtype(dtype), stream=place.stream)
