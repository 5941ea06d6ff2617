"""PyTorch module -> ONNX graph: one exporter call, reproducible bytes."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxscript import ir
from torch import Tensor, nn

from ohlora.engines import open_engine
from ohlora.engines.onnxruntime_backend import open_session
from ohlora.engines.rows import RowEngine
from ohlora.errors import EngineError

OPSET = 18
MAX_BATCH = 4096
TRACED_BATCH = 2
TINY = 1e-8  # up to this the exporter's optimizer takes a constant for zero
STAND_IN = 7919.0  # first number that takes the place of such a constant meanwhile


def to_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output: str | Sequence[str],
    properties: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Trace `module` with every input's first axis left open; weights inside, checked, free of paths.

    output: name of the result, or of each when the module returns several.
    """
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    with warnings.catch_warnings():
        # Said of every further input that shares the batch axis, as all of them are meant to.
        warnings.filterwarnings("ignore", message=".*axis name: batch")
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[output] if isinstance(output, str) else list(output),
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            optimize=False,
        )
    if program is None:
        raise EngineError(f"PyTorch made no graph of a {type(module).__name__}")
    _optimize(program)
    model = program.model_proto
    strip_traces(model)
    model.doc_string = ""
    if properties:
        onnx.helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model)
    return model


def _optimize(program: torch.onnx.ONNXProgram) -> None:
    """The exporter's optimizer, with every tiny constant kept.

    The optimizer takes a constant of at most 1e-8 for zero and drops its addition: a norm without its epsilon is NaN
    for zeros. Such constants are therefore exchanged for large ones while it runs, then put back.

    Raises:
        EngineError: a constant is not in the optimized graph as it was.
    """
    stand_ins: dict[float, float] = {}
    for value, put in _scalars(program):
        if 0 < abs(value) <= TINY:
            put(stand_ins.setdefault(value, STAND_IN + len(stand_ins)))
    program.optimize()
    originals = {stand_in: value for value, stand_in in stand_ins.items()}
    restored = set()
    for value, put in _scalars(program):
        if value in originals:
            put(originals[value])
            restored.add(originals[value])
    if lost := sorted(set(stand_ins) - restored):
        raise EngineError(f"the exporter's optimizer lost the constants {lost}")


def _scalars(program: torch.onnx.ONNXProgram) -> Iterator[tuple[float, Callable[[float], None]]]:
    """Every floating-point constant of one number: its value, and what puts another in its place."""
    for node in program.model.graph:
        tensor = node.attributes["value"].as_tensor() if "value" in node.attributes else None
        if node.op_type == "Constant" and tensor is not None and _is_scalar(tensor):
            yield float(tensor.numpy().item()), partial(_put_constant, node, tensor)
    for initializer in program.model.graph.initializers.values():
        tensor = initializer.const_value
        if tensor is not None and _is_scalar(tensor):
            yield float(tensor.numpy().item()), partial(_put_initializer, initializer, tensor)


def _is_scalar(tensor: Any) -> bool:
    return bool(tensor.size == 1 and tensor.dtype.is_floating_point())


def _put_constant(node: Any, tensor: Any, number: float) -> None:
    node.attributes["value"] = ir.AttrTensor("value", _like(tensor, number))


def _put_initializer(initializer: Any, tensor: Any, number: float) -> None:
    initializer.const_value = _like(tensor, number)


def _like(tensor: Any, number: float) -> Any:
    return ir.tensor(np.full_like(tensor.numpy(), number), name=tensor.name)


def strip_traces(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes (source lines and paths of the machine it ran on): same model, same bytes anywhere."""
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]


def run_graph(model: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """All outputs of `model` on the CPU by ONNX Runtime."""
    session = open_session(model.SerializeToString())
    outputs: list[NDArray[Any]] = session.run(None, dict(inputs))
    return outputs


def open_model(model: onnx.ModelProto | bytes, **options: Any) -> RowEngine:
    """An engine of a model that is in no file; options of `engines.open_engine`."""
    with tempfile.TemporaryDirectory(prefix="ohlora-export-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return open_engine(path, **options)
