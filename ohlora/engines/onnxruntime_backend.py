"""ONNX Runtime backend: one session, run concurrently by threads that share nothing but the weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ohlora.engines.model_file import ModelFile
from ohlora.engines.rows import Compiled, aligned_zeros
from ohlora.engines.spec import Arrays, EngineSpec, TensorSpec, batch_spec, measured_outputs, require_fixed_rows

# Since 1.29 its import starts a thread that reports to its maker, and keeps an identifier of the machine in the user's
# cache folder. A forked process crashes or hangs at its end, where the library waits for that thread of its parent's.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

# Execution providers in order of preference; ONNX Runtime moves on to the next for what one cannot run.
PROVIDERS = ("CPUExecutionProvider",)
_ERRORS_ONLY = 3
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("uint8", "int8", "int32", "int64")},
}


def compile_model(model: ModelFile, *, precision: str, threads: int, use_cache: bool = True) -> Compiled:
    """Open `model` for row by row use with `threads` concurrent rows.

    Nothing is cached: a session opens about as fast as a cache entry could be read and checked.
    Raises EngineError for models whose rows have no fixed size; backend errors pass through.
    """
    # One thread per run: how a sum is split, and so how it rounds, must not follow the machine.
    session = open_session(model.data, threads=1)
    spec = model_spec(session)
    return Compiled(spec, [_Runner(session, spec) for _ in range(threads)])


def open_session(data: bytes, *, threads: int = 0, optimized: bool = True, providers: Sequence[Any] = PROVIDERS) -> Any:
    """A session that logs errors only. threads: of one run, 0 for ONNX Runtime's own choice. optimized: its graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(data, options, providers=list(providers))


def model_spec(session: Any) -> EngineSpec:
    """Inputs as declared, outputs as one row of zeros gives them. Raises EngineError for rows of no fixed size."""
    declared = [
        (n.name, n.type, tuple(d if isinstance(d, int) else None for d in n.shape)) for n in session.get_inputs()
    ]
    inputs = tuple(batch_spec(name, _DTYPES.get(kind, kind), shape, "input") for name, kind, shape in declared)
    require_fixed_rows(inputs, "input")
    results = session.run(None, {t.name: np.zeros((1, *t.row_shape), t.dtype) for t in inputs})
    outputs = zip(session.get_outputs(), results, strict=True)
    measured = ((node.name, _DTYPES.get(node.type, node.type), result.shape) for node, result in outputs)
    return EngineSpec(inputs, measured_outputs(measured))


def bound(session: Any, spec: EngineSpec, make: Callable[[TensorSpec], Any]) -> tuple[Any, dict[str, Any]]:
    """A binding of all inputs and outputs to values of `make`, and these by name."""
    binding, values = session.io_binding(), {tensor.name: make(tensor) for tensor in spec.tensors}
    for tensor in spec.inputs:
        binding.bind_ortvalue_input(tensor.name, values[tensor.name])
    for tensor in spec.outputs:
        binding.bind_ortvalue_output(tensor.name, values[tensor.name])
    return binding, values


class _Runner:
    """Inputs and outputs bound to buffers of its own: nothing is allocated, and nothing looked up, per row."""

    def __init__(self, session: Any, spec: EngineSpec) -> None:
        self._session = session
        self._arrays = {t.name: aligned_zeros((1, *t.row_shape), t.dtype) for t in spec.tensors}
        # Values share the arrays' memory.
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        self._binding, _ = bound(session, spec, lambda tensor: value(self._arrays[tensor.name]))

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        for name, row in inputs.items():
            self._arrays[name][...] = row
        self._session.run_with_iobinding(self._binding)
        for name, row in outputs.items():
            row[...] = self._arrays[name]


def describe() -> tuple[str, bool, str]:
    """(version, has bf16, detail) for `ohlora doctor`."""
    present = ", ".join(onnxruntime.get_available_providers())
    return onnxruntime.__version__, False, f"uses {', '.join(PROVIDERS)} of {present}"
