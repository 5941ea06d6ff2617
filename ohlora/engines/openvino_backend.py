"""OpenVINO backend: the network compiled for batch 1, one stream of one thread per concurrent row."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from types import ModuleType
from typing import Any

import numpy as np

from ohlora.engines.cache import CacheEntry
from ohlora.engines.model_file import ModelFile
from ohlora.engines.rows import Compiled
from ohlora.engines.spec import Arrays, EngineSpec, TensorSpec, batch_spec, never_freed, require_fixed_rows
from ohlora.errors import EngineError

DEVICE = "CPU"
# ONNX element types by OpenVINO's names for them (Type.get_type_name).
_DTYPES = {
    "u8": "uint8",
    "i8": "int8",
    "i32": "int32",
    "i64": "int64",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "boolean": "bool",
}
_HINTS = {"fp32": "f32", "bf16": "bf16"}


def _without_telemetry() -> ModuleType:
    """The package `openvino`. As it is, importing it sends an event to its maker's analytics from a child process; it
    does without where its telemetry package is missing, which is what it is told here.
    """
    telemetry = "openvino_telemetry"
    hidden = telemetry not in sys.modules
    if hidden:
        sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            del sys.modules[telemetry]


openvino: Any = _without_telemetry()


@functools.cache
def _core() -> Any:
    return openvino.Core()


def _after_fork() -> None:
    """The parent's core waits for the parent's threads; a new one is made by the first use."""
    if _core.cache_info().currsize:
        never_freed(_core())
        _core.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _capabilities() -> list[str]:
    return sorted(_core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))


def compile_model(model: ModelFile, *, precision: str, threads: int, use_cache: bool = True) -> Compiled:
    """Compile `model` for batch 1 with `threads` streams, or load that from the cache.

    `use_cache=False` compiles anew and replaces the cache entry.
    Raises EngineError when bf16 is asked of a CPU without it or rows have no fixed size; backend errors pass.
    """
    if precision == "bf16" and "BF16" not in _capabilities():
        raise EngineError("this CPU has no bf16 instructions (AVX512-BF16 or AMX): use precision fp32")
    config = {
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        # Always explicit: left alone, OpenVINO computes in bf16 wherever the CPU can.
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "EXECUTION_MODE_HINT": "ACCURACY" if precision == "fp32" else "PERFORMANCE",
        # Several engines live in one process: pinned, they would all sit on the first cores.
        "ENABLE_CPU_PINNING": False,
    }
    entry = CacheEntry.of(
        "openvino",
        openvino.get_version(),
        _core().get_property(DEVICE, "FULL_DEVICE_NAME"),
        # Virtual machines share one generic device name; the instruction sets tell them apart.
        _capabilities(),
        model.sha256,
        precision,
        threads,
    )
    loaded = _from_cache(entry, config) if entry and use_cache else None
    if loaded:
        spec, compiled = loaded
    else:
        spec, compiled = _compile(model, config)
        if entry:
            entry.store(spec.to_json(), compiled.export_model().getvalue())
    _require_one_thread_per_stream(compiled)
    runners = [_Runner(compiled.create_infer_request(), spec) for _ in range(threads)]
    return Compiled(spec, runners, cached=loaded is not None, threaded=True)


def _from_cache(entry: CacheEntry, config: dict[str, Any]) -> tuple[EngineSpec, Any] | None:
    # Not OpenVINO's own CACHE_DIR: it loads a blob with flipped weights without noticing (tried).
    found = entry.load()
    if found is None:
        return None
    header, blob = found
    try:
        tensor = openvino.Tensor(np.frombuffer(blob, np.uint8))
        return EngineSpec.from_json(header), _core().import_model(tensor, DEVICE, config)
    except Exception:  # whatever is wrong with an entry, the answer is to compile again
        entry.discard()
        return None


def _compile(model: ModelFile, config: dict[str, Any]) -> tuple[EngineSpec, Any]:
    network = _core().read_model(model.data)
    inputs = tuple(_tensor(port, "input") for port in network.inputs)
    require_fixed_rows(inputs, "input")
    network.reshape({t.name: [1, *t.row_shape] for t in inputs})
    # Names are read before compiling: optimised graphs give one port the names of several fused tensors.
    outputs = tuple(_tensor(port, "output") for port in network.outputs)
    require_fixed_rows(outputs, "output")
    return EngineSpec(inputs, outputs), _core().compile_model(network, DEVICE, config)


def _tensor(port: Any, role: str) -> TensorSpec:
    shape = tuple(dim.get_length() if dim.is_static else None for dim in port.get_partial_shape())
    kind = port.get_element_type().get_type_name()
    return batch_spec(port.any_name, _DTYPES.get(kind, kind), shape, role)


def _require_one_thread_per_stream(compiled: Any) -> None:
    # OpenVINO caps both at the number of cores; what must hold is that no row is split among threads.
    streams, threads = (int(compiled.get_property(key)) for key in ("NUM_STREAMS", "INFERENCE_NUM_THREADS"))
    if threads > streams:
        raise EngineError(f"OpenVINO spread {threads} threads over {streams} streams, one each was asked")


class _Runner:
    def __init__(self, request: Any, spec: EngineSpec) -> None:
        # Views of the request's own, aligned buffers. The order of ports is the order of the spec.
        self._request = request
        self._inputs = {t.name: request.get_input_tensor(i).data for i, t in enumerate(spec.inputs)}
        self._outputs = [t.name for t in spec.outputs]

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        for name, row in inputs.items():
            self._inputs[name][...] = row
        # Through the stream's thread, not `infer`, which computes on the calling one.
        self._request.start_async()
        self._request.wait()
        for index, name in enumerate(self._outputs):
            outputs[name][...] = self._request.get_output_tensor(index).data


def describe() -> tuple[str, bool, str]:
    """(version, has bf16, detail) for `ohlora doctor`."""
    capabilities = _capabilities()
    device = _core().get_property(DEVICE, "FULL_DEVICE_NAME")
    return openvino.get_version(), "BF16" in capabilities, f"{device} ({', '.join(capabilities)})"
