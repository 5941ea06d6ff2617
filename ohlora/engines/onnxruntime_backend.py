"""ONNX Runtime backend: one session, run concurrently by threads that share nothing but the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.engines.model_file import ModelFile
from ohlora.engines.rows import Arrays, Compiled, aligned_empty
from ohlora.engines.spec import EngineSpec, TensorSpec, batch_spec, require_fixed_rows
from ohlora.errors import EngineError

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
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # One thread per run: how a sum is split, and so how it rounds, must not follow the machine.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(model.data, options, providers=list(PROVIDERS))
    spec = model_spec(session)
    return Compiled(spec, [_Runner(session, spec) for _ in range(threads)])


def model_spec(session: Any) -> EngineSpec:
    """Inputs as declared, outputs as one row gives them. Raises EngineError for rows of no fixed size."""
    inputs = tuple(_tensor(node, "input") for node in session.get_inputs())
    require_fixed_rows(inputs, "input")
    return EngineSpec(inputs, _measured_outputs(session, inputs))


def _tensor(node: Any, role: str) -> TensorSpec:
    shape = tuple(length if isinstance(length, int) else None for length in node.shape)
    return batch_spec(node.name, _DTYPES.get(node.type, node.type), shape, role)


def _measured_outputs(session: Any, inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Output specs from a run of one zero row: exporters often leave output sizes symbolic."""
    results = session.run(None, {t.name: np.zeros((1, *t.row_shape), t.dtype) for t in inputs})
    specs = []
    for node, result in zip(session.get_outputs(), results, strict=True):
        declared = _tensor(node, "output")
        if result.shape[:1] != (1,):
            raise EngineError(
                f"output '{node.name}' has shape {list(result.shape)} for one row: its first dimension "
                "must be the batch"
            )
        specs.append(TensorSpec(declared.name, declared.dtype, (None, *result.shape[1:])))
    return tuple(specs)


class _Runner:
    """Inputs and outputs bound to buffers of its own: nothing is allocated, and nothing looked up, per row."""

    def __init__(self, session: Any, spec: EngineSpec) -> None:
        import onnxruntime

        self._session, self._binding = session, session.io_binding()
        self._arrays: dict[str, NDArray[Any]] = {}
        for tensors, bind in (
            (spec.inputs, self._binding.bind_ortvalue_input),
            (spec.outputs, self._binding.bind_ortvalue_output),
        ):
            for tensor in tensors:
                array = aligned_empty((1, *tensor.row_shape), tensor.dtype)
                array[...] = 0
                self._arrays[tensor.name] = array
                # Shares the array's memory.
                bind(tensor.name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        for name, row in inputs.items():
            self._arrays[name][...] = row
        self._session.run_with_iobinding(self._binding)
        for name, row in outputs.items():
            row[...] = self._arrays[name]


def describe() -> tuple[str, bool, str]:
    """(version, has bf16, detail) for `ohlora doctor`."""
    import onnxruntime

    present = ", ".join(onnxruntime.get_available_providers())
    return onnxruntime.__version__, False, f"uses {', '.join(PROVIDERS)} of {present}"
