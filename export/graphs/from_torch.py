"""PyTorch module -> ONNX graph: one exporter call, reproducible bytes."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.engines import open_engine
from ohlora.engines.onnxruntime_backend import open_session
from ohlora.engines.rows import RowEngine
from ohlora.errors import EngineError

OPSET = 18
MAX_BATCH = 4096
TRACED_BATCH = 2


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
        )
    if program is None:
        raise EngineError(f"PyTorch made no graph of a {type(module).__name__}")
    model = program.model_proto
    strip_traces(model)
    model.doc_string = ""
    if properties:
        onnx.helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model)
    return model


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
