"""The weights of a bundle's generator, found by walking the graphs that `ohlora.export` writes.

Equal tensors are stored once, under the name of the first; so a tensor is found by the node that uses it, never by its
own name. Anything that is not as the exporter writes it raises BundleError naming the file and the node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ohlora.errors import BundleError
from ohlora.training.nets.stylegan_layers import EPSILON, SLOPE

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DenseWeights:
    """weight [O,I], bias [O], as multiplied at run time."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Offset:
    """What is added after a convolution. plane: [C,r,r], or the parts it was stored as (noise [r,r]).

    noise None: the plane alone is known. strength of zeros: there is no noise in it.
    """

    plane: Array
    noise: Array | None = None
    strength: Array | None = None
    bias: Array | None = None


@dataclass(frozen=True)
class LayerWeights:
    """One style layer. kernel: None for the first, [O,I,3,3] without, [O,I,4,4] with doubling of the size."""

    affine: DenseWeights
    kernel: Array | None
    offset: Offset | None


@dataclass(frozen=True)
class MappingWeights:
    """embedding: [L,E], or None when the label itself is appended to z (or there is none)."""

    z_size: int
    label_size: int
    embedding: Array | None
    dense: tuple[DenseWeights, ...]
    split: tuple[DenseWeights, ...]


@dataclass(frozen=True)
class SynthesisWeights:
    """start: the first layer's normalised activation [C,4,4]. half: whether weights are stored as float16."""

    start: Array
    layers: tuple[LayerWeights, ...]
    to_rgb: DenseWeights
    half: bool


class Graph:
    """A model's nodes by what they read and write, and every constant tensor by its name."""

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        try:
            # From bytes: tensors outside the file are never opened.
            model = onnx.load_model_from_string(data)
            self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        except Exception as error:  # protobuf and the tensor reader raise several kinds
            raise BundleError(f"{name} cannot be read as ONNX: {error}; get the bundle again") from error
        self.half = any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer)
        self.inputs = {value.name: value for value in model.graph.input if value.name not in self.constants}
        self.maker: dict[str, onnx.NodeProto] = {}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            self.maker.update(dict.fromkeys(node.output, node))
            if all(name in self.constants for name in node.input):
                self.constants[node.output[0]] = self._fold(node)
                continue
            for tensor in dict.fromkeys(node.input):
                self.users.setdefault(tensor, []).append(node)

    def _fold(self, node: onnx.NodeProto) -> NDArray[Any]:
        """Value of a node whose inputs are all constant: float16 storage puts such nodes before the weights."""
        values = [self.constants[name] for name in node.input]
        folds: dict[str, Callable[[], NDArray[Any]]] = {
            "Cast": lambda: values[0].astype(helper.tensor_dtype_to_np_dtype(attribute(node, "to"))),
            "Mul": lambda: values[0] * values[1],
            "Add": lambda: values[0] + values[1],
            "MatMul": lambda: values[0] @ values[1],
            "Transpose": lambda: values[0].transpose(attribute(node, "perm")),
        }
        if node.op_type not in folds:
            raise self.unexpected(node, "a constant made by another operation than the exporter's")
        return folds[node.op_type]()

    def unexpected(self, node: onnx.NodeProto | None, what: str) -> BundleError:
        where = f"node '{node.name}' ({node.op_type})" if node is not None else "the graph"
        return BundleError(
            f"{self.name}: {where} is {what}. Only generators exported by this package (`ohlora bundle build`) can be "
            "trained further from a bundle"
        )

    def user(self, tensor: str, *kinds: str) -> onnx.NodeProto:
        """The one node of these kinds that reads `tensor`."""
        found = [node for node in self.users.get(tensor, []) if node.op_type in kinds]
        if len(found) != 1:
            raise self.unexpected(self.maker.get(tensor), f"followed by {len(found)} {' or '.join(kinds)} nodes, not 1")
        return found[0]

    def made_by(self, tensor: str, kind: str) -> onnx.NodeProto:
        """The node that makes `tensor`, which must be of this kind."""
        node = self.maker.get(tensor)
        if node is None or node.op_type != kind:
            raise self.unexpected(node, f"where a {kind} node is expected (tensor '{tensor}')")
        return node

    def constant(self, node: onnx.NodeProto, at: int, *shape: int | None) -> Array:
        """Input `at` of `node` as float64; it must be a constant of this shape (None: any size)."""
        value = self.constants.get(node.input[at]) if at < len(node.input) else None
        if value is None:
            raise self.unexpected(node, f"without a stored tensor as input {at}")
        if len(value.shape) != len(shape) or any(
            want not in (None, have) for want, have in zip(shape, value.shape, strict=True)
        ):
            raise self.unexpected(node, f"with a tensor of shape {list(value.shape)} as input {at}")
        if not np.isfinite(value).all():
            raise self.unexpected(node, f"with NaN or infinity in input {at}")
        return np.asarray(value, dtype=np.float64)

    def other(self, node: onnx.NodeProto, tensor: str) -> int:
        """Index of the input of a two-input node that is not `tensor`."""
        if len(node.input) != 2 or tensor not in node.input:
            raise self.unexpected(node, f"without '{tensor}' as one of two inputs")
        return 1 - list(node.input).index(tensor)

    def require(self, node: onnx.NodeProto, condition: bool, what: str) -> None:
        if not condition:
            raise self.unexpected(node, what)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute, `default` where it has none."""
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def dense_of(graph: Graph, node: onnx.NodeProto, inputs: int | None = None) -> DenseWeights:
    plain = attribute(node, "transB", 0) == 1 and attribute(node, "transA", 0) == 0
    scaled = (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)) != (1.0, 1.0)
    graph.require(node, plain and not scaled, "a matrix product in another form")
    weight = graph.constant(node, 1, None, inputs)
    return DenseWeights(weight, bias_of(graph, node, weight.shape[0]))


def bias_of(graph: Graph, node: onnx.NodeProto, size: int) -> Array:
    """Input 2 of a dense layer or convolution; the exporter leaves a bias of zeros out."""
    return graph.constant(node, 2, size) if len(node.input) > 2 else np.zeros(size)


def leaky_after(graph: Graph, tensor: str) -> onnx.NodeProto:
    node = graph.user(tensor, "LeakyRelu")
    graph.require(node, abs(attribute(node, "alpha", 0.01) - SLOPE) < 1e-6, "with another slope")
    return node


def read_mapping(data: bytes, name: str = "mapping.onnx") -> MappingWeights:
    """Weights of mapping.onnx. Raises BundleError naming the node that is not the exporter's."""
    graph = Graph(data, name)
    if not {"z"} <= graph.inputs.keys() <= {"z", "label"}:
        raise BundleError(f"{name} takes {', '.join(graph.inputs) or 'nothing'}; a mapping network takes z and label")
    sizes = {key: value.type.tensor_type.shape.dim[-1].dim_value for key, value in graph.inputs.items()}
    label_size, embedding, joined = sizes.get("label", 0), None, "z"
    if label_size:
        join = graph.user("z", "Concat")
        tail = "label"
        if "label" not in join.input:
            product = graph.user("label", "MatMul")
            embedding, tail = graph.constant(product, 1, label_size, None), product.output[0]
        graph.require(join, list(join.input) == ["z", tail], "not z followed by the label")
        joined = join.output[0]
    normalised = next((n for n in graph.users.get(joined, []) if n.op_type == "Mul"), None)
    if normalised is None or graph.made_by(normalised.input[1], "Reciprocal") is None:
        raise graph.unexpected(normalised, "not the normalisation of the mapping's input")
    tensor, width = normalised.output[0], sizes["z"] + (label_size if embedding is None else embedding.shape[1])
    dense: list[DenseWeights] = []
    split: tuple[DenseWeights, ...] = ()
    while tensor != "w":
        nodes = [node for node in graph.users.get(tensor, []) if node.op_type == "Gemm"]
        if len(nodes) == 2:  # after the last shared layer; w is the sum of the branches
            branches = [_branch(graph, node, width) for node in nodes]
            # The plain branch keeps w's width; where both do, the trace has it first, and the function is the same
            # anyway.
            plain, split = sorted(branches, key=lambda branch: branch[0].weight.shape[0] != width)
            dense += plain
            break
        if len(nodes) != 1:
            raise graph.unexpected(graph.maker.get(tensor), f"followed by {len(nodes)} dense layers")
        dense.append(dense_of(graph, nodes[0], width))
        width = dense[-1].weight.shape[0]
        tensor = leaky_after(graph, nodes[0].output[0]).output[0]
    return MappingWeights(sizes["z"], label_size, embedding, tuple(dense), split)


def _branch(graph: Graph, node: onnx.NodeProto, width: int) -> tuple[DenseWeights, DenseWeights]:
    first = dense_of(graph, node, width)
    last = graph.user(leaky_after(graph, node.output[0]).output[0], "Gemm")
    end = leaky_after(graph, last.output[0]).output[0]
    graph.require(last, graph.user(end, "Add").output[0] == "w", "not the end of a mapping branch")
    return first, dense_of(graph, last, first.weight.shape[0])


def read_synthesis(data: bytes, name: str = "synthesis.onnx") -> SynthesisWeights:
    """Weights of synthesis.onnx, either collapse, float32 or float16. Raises BundleError naming the foreign node."""
    graph = Graph(data, name)
    if set(graph.inputs) != {"wp"}:
        raise BundleError(f"{name} takes {', '.join(graph.inputs) or 'nothing'}; a synthesis network takes wp")
    rows: dict[int, str] = {}
    for node in graph.users.get("wp", []):
        graph.require(node, node.op_type == "Gather" and attribute(node, "axis", 0) == 1, "no choice of one layer's w")
        rows[int(graph.constant(node, 1))] = node.output[0]
    if sorted(rows) != list(range(len(rows))) or len(rows) < 4 or len(rows) % 2:
        raise BundleError(f"{name} has style layers {sorted(rows)}: this package writes 0, 1, ... two a resolution")
    start = np.zeros(0)
    layers: list[LayerWeights] = []
    before = ""
    for index in range(len(rows)):
        node = graph.user(rows[index], "Gemm")
        affine = dense_of(graph, node)
        channels = affine.weight.shape[0] // 2
        halves = graph.user(graph.user(node.output[0], "Unsqueeze").output[0], "Split")
        graph.require(halves, len(halves.output) == 2 and attribute(halves, "axis", 0) == 1, "not scale and shift")
        scaled = graph.user(halves.output[0], "Mul")
        at = graph.other(scaled, halves.output[0])
        if index == 0:
            start = graph.constant(scaled, at, 1, channels, 4, 4)[0]
            layers.append(LayerWeights(affine, None, None))
        else:
            layers.append(_layer(graph, index, affine, scaled.input[at], before))
        shifted = graph.user(scaled.output[0], "Add")
        graph.require(shifted, halves.output[1] in shifted.input, "not the style's shift")
        before = shifted.output[0]
    last = graph.user(before, "Conv")
    weight = graph.constant(last, 1, 3, None, 1, 1)
    return SynthesisWeights(start, tuple(layers), DenseWeights(weight[:, :, 0, 0], bias_of(graph, last, 3)), graph.half)


def _layer(graph: Graph, index: int, affine: DenseWeights, normalised: str, before: str) -> LayerWeights:
    """Convolution and offset of one layer, from its instance norm back to the layer before."""
    channels = affine.weight.shape[0] // 2
    norm = graph.made_by(normalised, "InstanceNormalization")
    plain = (graph.constant(norm, 1, channels) == 1).all() and (graph.constant(norm, 2, channels) == 0).all()
    epsilon = attribute(norm, "epsilon", 1e-5)
    graph.require(norm, bool(plain) and abs(epsilon - EPSILON) < 1e-3 * EPSILON, "an instance norm with other values")
    activation = graph.made_by(norm.input[0], "LeakyRelu")
    leaky_after(graph, activation.input[0])
    before_it, size = graph.maker.get(activation.input[0]), 2 ** (2 + index // 2)
    if before_it is not None and before_it.op_type == "Conv":  # an offset of zeros is left out
        convolution, offset = before_it, _flat(np.zeros(channels), size)
    else:
        added = graph.made_by(activation.input[0], "Add")
        convolution, offset = graph.made_by(added.input[0], "Conv"), _offset(graph, added, channels, size)
    if index % 2:
        graph.require(convolution, convolution.input[0] == before, f"not fed by layer {index - 1}")
        return LayerWeights(affine, graph.constant(convolution, 1, channels, None, 3, 3), offset)
    line = np.array([1.0, 2.0, 1.0])
    blur = graph.constant(convolution, 1, channels, 1, 3, 3)
    graph.require(convolution, np.allclose(blur, np.outer(line, line) / 16, atol=1e-6), "no blur")
    kernel, source = _doubling(graph, convolution.input[0], channels)
    graph.require(convolution, source == before, f"not fed by layer {index - 1}")
    return LayerWeights(affine, kernel, offset)


def _offset(graph: Graph, added: onnx.NodeProto, channels: int, size: int) -> Offset:
    """Input 1 of the addition after a convolution; a float16 file has it in parts, of which the plane is made."""
    name = added.input[1]
    stored = graph.constants.get(name)
    if stored is not None and stored.shape == (1, channels, 1, 1):
        return _flat(graph.constant(added, 1, 1, channels, 1, 1).reshape(-1), size)
    plane = graph.constant(added, 1, 1, channels, size, size)[0]
    maker = graph.maker.get(name)
    if maker is None:
        return Offset(plane)
    product = graph.made_by(maker.input[0], "Mul")
    return Offset(
        plane,
        graph.constant(product, 0, 1, 1, size, size)[0, 0],
        graph.constant(product, 1, 1, channels, 1, 1).reshape(-1),
        graph.constant(maker, 1, 1, channels, 1, 1).reshape(-1),
    )


def _flat(bias: Array, size: int) -> Offset:
    """An offset without noise."""
    return Offset(np.broadcast_to(bias[:, None, None], (bias.size, size, size)), None, np.zeros_like(bias), bias)


def _doubling(graph: Graph, tensor: str, channels: int) -> tuple[Array, str]:
    """(4x4 kernel [O,I,4,4], input tensor) of an upsampling convolution of either form."""
    node = graph.maker.get(tensor)
    if node is not None and node.op_type == "ConvTranspose":
        two = list(attribute(node, "strides", [])) == [2, 2] and list(attribute(node, "pads", [])) == [1, 1, 1, 1]
        graph.require(node, two, "a transposed convolution with other strides")
        return graph.constant(node, 1, None, channels, 4, 4).transpose(1, 0, 2, 3), node.input[0]
    columns = graph.made_by(tensor, "Slice")
    shuffle = graph.made_by(graph.made_by(columns.input[0], "Slice").input[0], "DepthToSpace")
    graph.require(shuffle, attribute(shuffle, "mode", b"DCR") == b"CRD", "a shuffle in another order")
    convolution = graph.made_by(shuffle.input[0], "Conv")
    phases = graph.constant(convolution, 1, 4 * channels, None, 2, 2)
    wide = np.empty((channels, phases.shape[1], 4, 4))
    rows = {0: [2, 0], 1: [3, 1]}  # as in export: phase -> kernel rows of its two input rows
    for i in (0, 1):
        for j in (0, 1):
            # Channel c * 4 + 2i + j of the shuffle is output pixel (i, j).
            wide[np.ix_(range(channels), range(phases.shape[1]), rows[i], rows[j])] = phases[2 * i + j :: 4]
    return wide, convolution.input[0]
