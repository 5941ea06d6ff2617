"""Weights stored as float16 in an ONNX graph, computed in float32: half the file, the same speed.

What is stored stands in front of nodes whose inputs are all constant. ONNX Runtime and OpenVINO compute those
once, when they load the graph, so nothing of this is left at run time (a test looks at their folded graphs).
The same way a tensor can be stored as what it was made from, where that is smaller: a 4x4 upsampling kernel as
its 3x3 kernel, a noise offset as one noise map, strengths and biases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ohlora.errors import EngineError

Float32 = NDArray[np.float32]

# Smaller tensors are biases, norms and strengths: rounding them costs most and saves nothing.
HALF_FROM = 4096
# Largest values inside this range are stored as they are; others are scaled into it by a power of two first.
COMFORTABLE = (2.0**-6, 2.0**14)
# Relative error of one output channel (first axis). Normal float16 numbers stay below 2^-11; instance norm gives
# a channel of tiny weights the same say as the others, so each has to be kept, not just the tensor's largest.
CHANNEL_ERROR = 2.0**-10


@dataclass(frozen=True)
class WidenedKernel:
    """A transposed-convolution kernel [I,O,4,4] stored as the kernel [O,I,3,3] it is the sum of (`widen`)."""

    weight: Float32


@dataclass(frozen=True)
class NoiseOffset:
    """An offset [1,C,r,r] stored as noise [1,1,r,r], strength [C] and bias [C]."""

    noise: Float32
    strength: Float32
    bias: Float32


Source = WidenedKernel | NoiseOffset


def store_half(model: onnx.ModelProto, sources: Mapping[str, Source] | None = None) -> None:
    """Replace the large float32 initialisers of `model`, in place. Keeps names and meaning of all tensors.

    sources: what named initialisers are made from; they are stored as that.
    Raises EngineError for tensors that are not finite and for sources that no initialiser belongs to.
    """
    graph = model.graph
    missing, sourced = dict(sources or {}), []
    store = _Store([], [])
    for tensor in graph.initializer:
        if tensor.name in missing:
            sourced.append(numpy_helper.to_array(tensor))
            store.source(tensor, missing.pop(tensor.name))
        elif tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= HALF_FROM:
            store.put(numpy_helper.to_array(tensor), tensor.name)
        else:
            store.tensors.append(tensor)
    for name, source in missing.items():
        # Equal tensors (offsets of untrained layers) are one in the graph, under the name of the first.
        if not any(np.array_equal(_rebuild(source), other) for other in sourced):
            raise EngineError(f"the exported graph has no tensor {name}: its layers have other names")
    nodes = list(graph.node)
    # Noted shapes of what was an initialiser: an offset without noise is smaller now.
    replaced = {tensor.name for tensor in graph.initializer}
    noted = [value for value in graph.value_info if value.name not in replaced]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.value_info.extend(noted)
    graph.node.extend([*store.nodes, *nodes])
    graph.initializer.extend(store.tensors)


@dataclass
class _Store:
    """Collects the new initialisers and the nodes that turn them into the old tensors."""

    tensors: list[onnx.TensorProto]
    nodes: list[onnx.NodeProto]

    def put(self, value: Float32, name: str) -> None:
        """Make tensor `name` of `value`, by a float16 initialiser where that keeps every channel."""
        if not np.isfinite(value).all():
            raise EngineError(f"{name} holds NaN or infinity: this generator cannot be exported")
        shift = _shift(value)
        half = np.ldexp(value, shift).astype(np.float16)
        if _worst_channel(value, np.ldexp(half.astype(np.float32), -shift)) > CHANNEL_ERROR:
            self.tensors.append(numpy_helper.from_array(value, name))
            return
        self.tensors.append(numpy_helper.from_array(half, f"{name}_f16"))
        if shift == 0:
            self.node("Cast", [f"{name}_f16"], name, to=TensorProto.FLOAT)
            return
        self.node("Cast", [f"{name}_f16"], f"{name}_shifted", to=TensorProto.FLOAT)
        self.node("Mul", [f"{name}_shifted", self.constant(np.float32(2.0**-shift), f"{name}_unit")], name)

    def source(self, tensor: onnx.TensorProto, source: Source) -> None:
        """Make the tensor of what it was made from; its values must come out as they were."""
        name, wanted = tensor.name, numpy_helper.to_array(tensor)
        made = _rebuild(source)
        if made.shape != wanted.shape:
            raise EngineError(f"{name} has shape {list(wanted.shape)}, its source gives {list(made.shape)}")
        if not np.allclose(made, wanted, rtol=1e-5, atol=1e-5 * float(np.abs(wanted).max())):
            raise EngineError(f"{name} is not what its source gives: the layer was changed by another rewrite")
        if isinstance(source, WidenedKernel):
            self._widened(name, source)
        else:
            self._offset(name, source)

    def _widened(self, name: str, source: WidenedKernel) -> None:
        # Each 3x3 kernel times the band matrix from the right and its transpose from the left, then [I,O,4,4].
        self.put(source.weight, f"{name}_3x3")
        right, left = self.constant(BAND, f"{name}_right"), self.constant(BAND.T.copy(), f"{name}_left")
        self.node("MatMul", [f"{name}_3x3", right], f"{name}_3x4")
        self.node("MatMul", [left, f"{name}_3x4"], f"{name}_4x4")
        self.node("Transpose", [f"{name}_4x4"], name, perm=[1, 0, 2, 3])

    def _offset(self, name: str, source: NoiseOffset) -> None:
        bias = source.bias.reshape(1, -1, 1, 1)
        if not source.strength.any():
            self.tensors.append(numpy_helper.from_array(bias, name))
            return
        if source.noise.size >= HALF_FROM:
            self.put(source.noise, f"{name}_noise")
        else:
            self.constant(source.noise, f"{name}_noise")
        strength = self.constant(source.strength.reshape(1, -1, 1, 1), f"{name}_strength")
        self.node("Mul", [f"{name}_noise", strength], f"{name}_scaled_noise")
        self.node("Add", [f"{name}_scaled_noise", self.constant(bias, f"{name}_bias")], name)

    def constant(self, value: NDArray[np.float32] | np.float32, name: str) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}_made", **attributes))


# Row i of a 3-tap line adds to taps i and i + 1 of the 4-tap one.
BAND: Float32 = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], dtype=np.float32)


def _rebuild(source: Source) -> Float32:
    if isinstance(source, WidenedKernel):
        return np.asarray(BAND.T @ source.weight.transpose(1, 0, 2, 3) @ BAND, np.float32)
    strength, bias = (value.astype(np.float64).reshape(1, -1, 1, 1) for value in (source.strength, source.bias))
    return (source.noise * strength + bias).astype(np.float32)


def _shift(value: Float32) -> int:
    """Power of two that brings the largest value near 1 when it lies outside the comfortable range."""
    largest = float(np.abs(value).max(initial=0.0))
    if largest == 0.0 or COMFORTABLE[0] <= largest <= COMFORTABLE[1]:
        return 0
    return -math.frexp(largest)[1]


def _worst_channel(value: Float32, stored: Float32) -> float:
    """Largest relative error (Euclidean) of one slice along the first axis; 0 for slices of zeros."""
    rows = value.reshape(value.shape[0], -1).astype(np.float64)
    error = np.linalg.norm(stored.reshape(rows.shape) - rows, axis=1)
    norm = np.linalg.norm(rows, axis=1)
    return float(np.max(np.divide(error, norm, out=np.zeros_like(norm), where=norm > 0), initial=0.0))
