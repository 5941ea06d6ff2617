"""PyTorch module -> ONNX graph: one exporter call, reproducible bytes; and its comparison with the module."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.errors import EngineError

OPSET = 18
MAX_BATCH = 4096
TRACED_BATCH, CHECKED_BATCH = 2, 3  # different, so that a frozen batch size cannot pass
TOLERANCE = 1e-4  # of the largest value, at least of 1


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
    assert program is not None
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


def run_graph(model: onnx.ModelProto, inputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.generic]]:
    """All outputs of `model` on the CPU by ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.generic]] = session.run(None, dict(inputs))
    return outputs


def compare(name: str, made: NDArray[np.generic], wanted: Tensor) -> float:
    """Largest difference between what the graph `name` and the module made. Raises EngineError when it is too large."""
    reference = wanted.numpy()
    error = float(np.max(np.abs(made - reference)))
    limit = TOLERANCE * max(1.0, float(np.max(np.abs(reference))))
    if not error <= limit:  # NaN fails too
        raise EngineError(
            f"{name} differs from PyTorch by {error:.3g}, more than {limit:.3g}; nothing was written. The "
            "weights may hold extreme or non-finite values: check the checkpoint"
        )
    return error
