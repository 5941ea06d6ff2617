"""An ONNX file as a PyTorch module: the engines' graphs, run by PyTorch on a CPU or a CUDA device.

Constants are folded when it is built, so what remains is one straight line of calls, which torch.compile can fuse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from ohlora.engines.onnx_torch.mixed_precision import Low, lower
from ohlora.engines.onnx_torch.onnx_graphs import fold_constants
from ohlora.engines.onnx_torch.torch_ops import OPS, TYPES, UnsupportedOperatorError
from ohlora.engines.spec import EngineSpec, TensorSpec, batch_spec, measured_outputs, require_fixed_rows
from ohlora.errors import EngineError

LOWERED: dict[str, Low] = {"bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Step:
    """One call: `function` of the values at `inputs` (None: left out), results to `outputs`."""

    function: Callable[..., Any]
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]


class TorchGraph(nn.Module):
    """forward(*inputs in the model's order) -> tuple of outputs. Weights are buffers, so `.to(device)` moves them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = model.graph
        self.input_names = [tensor.name for tensor in graph.input]
        self.output_names = [tensor.name for tensor in graph.output]
        place = {name: number for number, name in enumerate(self.input_names)}
        self.constants: list[tuple[int, str]] = []
        known: dict[str, Tensor] = {}
        for tensor in graph.initializer:
            known[tensor.name] = value = _tensor(tensor)
            place[tensor.name] = len(place)
            name = f"constant{len(self.constants)}"
            self.register_buffer(name, value)
            self.constants.append((place[tensor.name], name))
        steps = []
        for node in graph.node:
            function = _function(node, [known.get(name) if name else None for name in node.input])
            inputs = tuple(place[name] if name else None for name in node.input)
            for name in node.output:
                place[name] = len(place)
            steps.append(Step(function, inputs, tuple(place[name] for name in node.output)))
        self.steps = tuple(steps)
        self.results = tuple(place[name] for name in self.output_names)
        self.size = len(place)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values: list[Any] = [None] * self.size
        values[: len(inputs)] = inputs
        for number, name in self.constants:
            values[number] = getattr(self, name)
        for step in self.steps:
            made = step.function(*[None if place is None else values[place] for place in step.inputs])
            if len(step.outputs) == 1:
                values[step.outputs[0]] = made[0] if isinstance(made, tuple) else made
            else:
                for place, value in zip(step.outputs, made, strict=True):
                    values[place] = value
        return tuple(cast(Tensor, values[place]) for place in self.results)


def torch_graph(data: bytes, precision: str = "fp32") -> TorchGraph:
    """The network of an ONNX file in evaluation. precision: 'fp32', 'bf16' or 'fp16' (`mixed_precision.lower`).

    Raises EngineError for an operation that is not translated, naming it and its node.
    """
    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf raises a type of its own
        raise EngineError(f"not an ONNX model: {error}") from error
    model = lower(model, LOWERED[precision]) if precision in LOWERED else fold_constants(model)
    return TorchGraph(model).eval()


def graph_spec(module: TorchGraph, data: bytes) -> EngineSpec:
    """Inputs as the file declares them, outputs as one row of zeros gives them."""
    model = onnx.load_from_string(data)
    inputs = tuple(_declared(value) for value in model.graph.input)
    require_fixed_rows(inputs, "input")
    with torch.inference_mode():
        zeros = [torch.zeros((1, *t.row_shape), dtype=getattr(torch, t.dtype)) for t in inputs]
        results = module(*zeros)
    values = zip(module.output_names, results, strict=True)
    outputs = measured_outputs((name, _dtype_name(value.dtype), tuple(value.shape)) for name, value in values)
    return EngineSpec(inputs, outputs)


def _declared(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    dtype = TYPES.get(kind.elem_type)
    return batch_spec(value.name, _dtype_name(dtype) if dtype else "unknown", shape, "input")


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _tensor(tensor: onnx.TensorProto) -> Tensor:
    if tensor.data_type == onnx.TensorProto.BFLOAT16:
        return torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(numpy_helper.to_array(tensor)))


def _function(node: onnx.NodeProto, given: Sequence[Tensor | None]) -> Callable[..., Any]:
    maker = OPS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    what = f"{node.op_type} (node '{node.name}')"
    if maker is None:
        raise EngineError(f"PyTorch does not translate the operation {what}: use another backend")
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    attributes = {name: v.decode() if isinstance(v, bytes) else v for name, v in attributes.items()}
    try:
        return maker(attributes, given)
    except UnsupportedOperatorError as error:
        raise EngineError(f"PyTorch does not translate {what}: {error}; use another backend") from error
