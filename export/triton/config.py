"""`config.pbtxt` of Triton Inference Server, written as text, and read back with Triton's own definitions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ohlora.engines.spec import TensorSpec
from ohlora.errors import EngineError
from ohlora.export.formats import Batch

TYPES = {
    "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8", "int8": "TYPE_INT8", "int32": "TYPE_INT32", "int64": "TYPE_INT64",
    "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64",
}  # fmt: skip
MODEL_FILE = "model.onnx"
DELAY = 2000  # microseconds that a request waits for others to share a batch with
INSTALL = "pip install 'tritonclient[grpc]'"


class Word(str):
    """A name that the text format writes without quotes: an enumeration's member."""

    __slots__ = ()


@dataclass(frozen=True)
class Step:
    """One model of an ensemble. inputs, outputs: the model's tensor -> the ensemble's."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


Tensors = Sequence[TensorSpec]


def model_config(name: str, inputs: Tensors, outputs: Tensors, batch: Batch, warm_ups: Mapping[str, int]) -> str:
    """The configuration of an ONNX model. warm_ups: name of a warm-up request -> its rows, which Triton repeats.

    Their input files lie below the model's folder, `warmup/REQUEST-INPUT`.
    """

    def row(request: str, tensor: TensorSpec) -> dict[str, Any]:
        return {**_type(tensor), "input_data_file": f"{request}-{tensor.name}"}

    batching = {
        "preferred_batch_size": sorted({size for size in (batch.opt, batch.max) if size > 1}),
        "max_queue_delay_microseconds": DELAY,
    }
    requests = [
        {"name": request, "batch_size": rows, "inputs": _pairs({one.name: row(request, one) for one in inputs})}
        for request, rows in warm_ups.items()
    ]
    head = {"name": name, "backend": "onnxruntime", "default_model_filename": MODEL_FILE}
    schedule = {"dynamic_batching": batching, "model_warmup": requests}
    return _config(head, inputs, outputs, batch.max, schedule)


def ensemble_config(name: str, inputs: Tensors, outputs: Tensors, max_batch: int, steps: Sequence[Step]) -> str:
    """The configuration of a chain of models."""
    chain = [
        {
            "model_name": step.model,
            "model_version": -1,
            "input_map": _pairs(step.inputs),
            "output_map": _pairs(step.outputs),
        }
        for step in steps
    ]
    head = {"name": name, "platform": "ensemble"}
    return _config(head, inputs, outputs, max_batch, {"ensemble_scheduling": {"step": chain}})


def _config(
    head: Mapping[str, Any], inputs: Tensors, outputs: Tensors, max_batch: int, schedule: Mapping[str, Any]
) -> str:
    sides = {side: [_tensor(one) for one in tensors] for side, tensors in (("input", inputs), ("output", outputs))}
    version = {"version_policy": {"latest": {"num_versions": 1}}}
    return _fields({**head, "max_batch_size": max_batch, **sides, **version, **schedule}, 0)


def _pairs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _type(tensor: TensorSpec) -> dict[str, Any]:
    """Of a row; one that is a single number is one element for Triton."""
    return {"data_type": Word(TYPES[tensor.dtype]), "dims": list(tensor.row_shape) or [1]}


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    """A row that is one number loses its axis again before the model."""
    return {"name": tensor.name, **_type(tensor)} | ({} if tensor.row_shape else {"reshape": {"shape": []}})


def _fields(content: Mapping[str, Any], depth: int) -> str:
    """Protobuf's text format: messages in braces, repeated fields one after the other, numbers in brackets."""
    pad, lines = "  " * depth, []
    for name, value in content.items():
        if isinstance(value, Mapping):
            lines.append(f"{pad}{name} {{\n{_fields(value, depth + 1)}{pad}}}\n")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines += [f"{pad}{name} {{\n{_fields(one, depth + 1)}{pad}}}\n" for one in value]
        elif isinstance(value, list):
            # An empty list says nothing; an empty shape is said by the message around it being there.
            lines += [f"{pad}{name}: [ {', '.join(map(str, value))} ]\n"] if value else []
        elif isinstance(value, str) and not isinstance(value, Word):
            lines.append(f"{pad}{name}: {json.dumps(value)}\n")
        else:
            lines.append(f"{pad}{name}: {value}\n")
    return "".join(lines)


def parse_config(path: Path) -> Any:
    """The `ModelConfig` message of a config.pbtxt. Raises EngineError: no tritonclient, not that format."""
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise EngineError(f"a repository is validated with Triton's own definitions: {INSTALL}") from error
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise EngineError(f"{path} is no Triton model configuration: {error}") from error


def type_name(number: int) -> str:
    """'TYPE_FP32' of a parsed configuration's data_type."""
    from tritonclient.grpc import model_config_pb2

    return str(model_config_pb2.DataType.Name(number))
