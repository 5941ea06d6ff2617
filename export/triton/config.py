"""`config.pbtxt` of Triton Inference Server, written as text, and read back with Triton's own definitions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ohlora.engines.spec import TensorSpec
from ohlora.errors import EngineError

TYPES = {
    "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8", "int8": "TYPE_INT8", "int32": "TYPE_INT32", "int64": "TYPE_INT64",
    "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64",
}  # fmt: skip
INSTALL = "pip install 'tritonclient[grpc]'"


class Word(str):
    """A name that the text format writes without quotes: an enumeration's member."""

    __slots__ = ()


@dataclass(frozen=True)
class WarmUp:
    """Input files of one warm-up request, below the model's folder `warmup/`. batch: its rows."""

    name: str
    batch: int
    inputs: Mapping[str, TensorSpec]


@dataclass(frozen=True)
class Step:
    """One model of an ensemble. inputs, outputs: the model's tensor -> the ensemble's."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class ModelConfig:
    """One model. backend '' with steps for an ensemble, else 'onnxruntime'. file: of its only version.

    delay: microseconds that a request waits for others to share a batch with.
    """

    name: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    max_batch: int
    preferred: Sequence[int] = ()
    delay: int = 2000
    backend: str = "onnxruntime"
    file: str = "model.onnx"
    warm_ups: Sequence[WarmUp] = ()
    steps: Sequence[Step] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The file's content."""
        content: dict[str, Any] = {"name": self.name}
        if self.steps:
            content["platform"] = "ensemble"
        else:
            content |= {"backend": self.backend, "default_model_filename": self.file}
        content["max_batch_size"] = self.max_batch
        content["input"] = [_tensor(tensor) for tensor in self.inputs]
        content["output"] = [_tensor(tensor) for tensor in self.outputs]
        content["version_policy"] = {"latest": {"num_versions": 1}}
        if self.steps:
            content["ensemble_scheduling"] = {
                "step": [
                    {
                        "model_name": step.model,
                        "model_version": -1,
                        "input_map": [{"key": a, "value": b} for a, b in step.inputs.items()],
                        "output_map": [{"key": a, "value": b} for a, b in step.outputs.items()],
                    }
                    for step in self.steps
                ]
            }
        else:
            content["dynamic_batching"] = {
                "preferred_batch_size": list(self.preferred),
                "max_queue_delay_microseconds": self.delay,
            }
            content["model_warmup"] = [_warm_up(one) for one in self.warm_ups]
        content["parameters"] = [{"key": a, "value": {"string_value": b}} for a, b in self.parameters.items()]
        return _fields(content, 0)


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    """A row's shape; a row that is one number is one element that Triton takes away again before the model."""
    row = list(tensor.row_shape)
    content: dict[str, Any] = {"name": tensor.name, "data_type": Word(TYPES[tensor.dtype]), "dims": row or [1]}
    return content if row else content | {"reshape": {"shape": []}}


def _warm_up(warm: WarmUp) -> dict[str, Any]:
    return {
        "name": warm.name,
        "batch_size": warm.batch,
        "inputs": [
            {
                "key": name,
                "value": {
                    "data_type": Word(TYPES[tensor.dtype]),
                    "dims": list(tensor.row_shape) or [1],
                    "input_data_file": f"{warm.name}-{name}",
                },
            }
            for name, tensor in warm.inputs.items()
        ],
    }


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
