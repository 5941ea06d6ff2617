"""int8 convolutions in an ONNX graph, by QuantizeLinear and DequantizeLinear around them (QDQ).

Weights: int8, one scale per output channel. Activations: one scale per tensor, its range chosen on calibration data so
that clipping and rounding together cost least. Everything else, sums and biases included, stays float32. Backends with
integer kernels (OpenVINO with VNNI or AMX, TensorRT) run these convolutions in int8; any other computes the same
numbers in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ohlora.engines.onnx_torch.onnx_graphs import drop_unused
from ohlora.engines.onnxruntime_backend import open_session
from ohlora.errors import EngineError

Rows = Mapping[str, NDArray[np.generic]]

LEVELS = 255
SAMPLES = 200_000  # values of one tensor that its range is chosen on
CLIPS = np.linspace(0.3, 1.0, 36)  # shares of the largest value tried as range


@dataclass(frozen=True)
class ConvNode:
    """A convolution that can be quantised. weight [O, I/groups, kh, kw]; macs: of one row."""

    name: str
    source: str  # its input activation
    weight: str
    macs: int


@dataclass(frozen=True)
class Range:
    """Values of an activation that are represented: low <= 0 <= high."""

    low: float
    high: float


def convolutions(model: onnx.ModelProto, row: Rows) -> list[ConvNode]:
    """The convolutions of `model` with constant weights, in order; sizes are measured on `row` (batch 1)."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in weights]
    outputs = _Inside(model, [node.output[0] for node in nodes])(row)
    found = []
    for node, output in zip(nodes, outputs, strict=True):
        kernel = weights[node.input[1]]
        macs = int(np.prod(output.shape[1:])) * int(np.prod(kernel[1:]))
        found.append(ConvNode(node.name, node.input[0], node.input[1], macs))
    return found


def calibrate(
    model: onnx.ModelProto, convs: Sequence[ConvNode], rows: Iterable[Rows], symmetric: bool
) -> dict[str, Range]:
    """Range of each convolution's input, by the tensor's name, from what `rows` (batch 1 each) put into it."""
    names = sorted({conv.source for conv in convs})
    rng = np.random.Generator(np.random.Philox(key=17))
    seen: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    inside = _Inside(model, names)
    for row in rows:
        for name, value in zip(names, inside(row), strict=True):
            flat = value.reshape(-1)
            extremes = np.array([flat.min(), flat.max()], np.float32)
            keep = flat if flat.size <= SAMPLES // 8 else rng.choice(flat, SAMPLES // 8)
            seen[name].append(np.concatenate([keep, extremes]))
    if not all(seen.values()):
        raise EngineError("int8 needs calibration rows: give at least one")
    return {name: _best_range(np.concatenate(parts), symmetric) for name, parts in seen.items()}


def _best_range(values: NDArray[np.float32], symmetric: bool) -> Range:
    """The clip that leaves the least mean squared error."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if symmetric:
        high = max(-low, high)
        low = -high
    if high == low:
        return Range(0.0, 1.0)
    best = min(CLIPS, key=lambda clip: _error(values, low * clip, high * clip))
    return Range(low * float(best), high * float(best))


def _error(values: NDArray[np.float32], low: float, high: float) -> float:
    step = (high - low) / LEVELS
    rounded = np.rint(np.clip(values, low, high) / step) * step
    return float(np.mean(np.square(values - rounded, dtype=np.float64)))


def quantize(
    model: onnx.ModelProto, convs: Sequence[ConvNode], ranges: Mapping[str, Range], symmetric: bool
) -> onnx.ModelProto:
    """A copy of `model` with `convs` in int8. symmetric: activations int8 around 0, as TensorRT wants; else uint8."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    chosen = {conv.name: conv for conv in convs}
    done: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, value: NDArray[np.generic] | np.generic) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def activation(name: str) -> str:
        scale, zero = _scale(ranges[name], symmetric)
        inputs = [constant(f"{name}_scale", np.float32(scale)), constant(f"{name}_zero", zero)]
        nodes.append(helper.make_node("QuantizeLinear", [name, *inputs], [f"{name}_q"], name=f"{name}_quantize"))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_q", *inputs], [f"{name}_dq"], name=f"{name}_dequantize")
        )
        return f"{name}_dq"

    def weight(name: str) -> str:
        stored, scales = _weight(weights[name])
        inputs = [constant(f"{name}_int8", stored), constant(f"{name}_scales", scales),
                  constant(f"{name}_zeros", np.zeros(len(scales), np.int8))]  # fmt: skip
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], name=f"{name}_dequantize", axis=0))
        return f"{name}_dq"

    for node in graph.node:
        if node.name in chosen:
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            for place, make in ((0, activation), (1, weight)):
                source = node.input[place]
                done[source] = done.get(source) or make(source)
                copied.input[place] = done[source]
            node = copied
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(result)
    onnx.checker.check_model(result, full_check=True)
    return result


def _scale(found: Range, symmetric: bool) -> tuple[float, NDArray[np.generic]]:
    if symmetric:
        return found.high / 127, np.array(0, np.int8)
    step = (found.high - found.low) / LEVELS
    return step, np.array(round(-found.low / step), np.uint8)


def _weight(value: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 [O,...] and a scale per output channel [O]; a channel of zeros keeps scale 1."""
    largest = np.abs(value).reshape(len(value), -1).max(axis=1)
    scales = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    shape = (-1,) + (1,) * (value.ndim - 1)
    return np.clip(np.rint(value / scales.reshape(shape)), -127, 127).astype(np.int8), scales


class _Inside:
    """Runs a model and gives the values of inner tensors. names: of tensors or inputs."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str]) -> None:
        self._names = list(names)
        probed = onnx.ModelProto()
        probed.CopyFrom(model)
        del probed.graph.output[:]
        inputs = {tensor.name: tensor for tensor in model.graph.input}
        for name in dict.fromkeys(names):
            declared = inputs.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            probed.graph.output.append(declared)
        self._session = open_session(probed.SerializeToString())

    def __call__(self, row: Rows) -> list[NDArray[np.float32]]:
        return list(self._session.run(self._names, dict(row)))
