"""MobileStyleGAN as ONNX, opset 17, any batch; its weights are arrays of `ohlora.bundle.photo.rewrites`.

    mapping    z float32 [N,Z] -> w float32 [N,W]
    synthesis  wp float32 [N,layers,W] -> image uint8 [N,R,R,3] RGB, or float32 [N,3,R,R] that is not clipped

`write_weightless` makes the graphs that the package ships: names and shapes, and no number that was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ohlora.base.atomic import write_bytes
from ohlora.bundle.photo.architecture import BANDS, EPSILON, FFHQ, SLOPE, Architecture, Block
from ohlora.bundle.photo.rewrites import Haar, mapping_arrays, style_rows, synthesis_arrays
from ohlora.export.graphs.builder import GraphBuilder

OPSET = 17
Arrays = Mapping[str, NDArray[np.float32]]


def mapping_graph(arrays: Arrays, architecture: Architecture) -> onnx.ModelProto:
    """arrays: of `mapping_arrays`."""
    graph = GraphBuilder(opset=OPSET)
    # A sum, not a mean: how ReduceMean takes its axes changed with the next opset, which fused graphs are written in.
    squares = graph.add("Mul", ["z", "z"], "squares")
    total = graph.add("ReduceSum", [squares, graph.integers(1)], "total", keepdims=1)
    mean = graph.add("Mul", [total, graph.number(1.0 / architecture.z_size)], "mean")
    norm = graph.add("Sqrt", [graph.add("Add", [mean, graph.number(EPSILON)], "positive")], "norm")
    x = graph.add("Div", ["z", norm], "normalized")
    last = architecture.mapping_layers - 1
    for i in range(architecture.mapping_layers):
        name = f"mapping.fc{i}"
        weights = [graph.constant(f"{name}.{leaf}", arrays[f"{name}.{leaf}"]) for leaf in ("weight", "bias")]
        x = graph.add("Gemm", [x, *weights], name, transB=1)
        x = graph.add("LeakyRelu", [x], "w" if i == last else f"{name}.activated", alpha=SLOPE)
    inputs = {"z": ("float32", ("N", architecture.z_size))}
    outputs = {"w": ("float32", ("N", architecture.w_size))}
    return graph.model("mapping", inputs, outputs, _properties("mapping", architecture, architecture.resolution))


def synthesis_graph(
    arrays: Arrays,
    architecture: Architecture,
    size: int,
    haar: Haar = "grouped",
    *,
    tail: bool = False,
    float_output: bool = False,
) -> onnx.ModelProto:
    """arrays: of `synthesis_arrays` for the same size and form of the Haar transform; tail: of `tail_arrays`."""
    graph = _SynthesisGraph(arrays, architecture, haar, size // 2 if tail else architecture.resolution)
    image = graph.image(size)
    if float_output:
        graph.add("Identity", [image], "image")
        outputs = {"image": ("float32", ("N", 3, size, size))}
    else:
        graph.bytes_of(image)
        outputs = {"image": ("uint8", ("N", size, size, 3))}
    inputs = {"wp": ("float32", ("N", architecture.layers, architecture.w_size))}
    properties = _properties("synthesis", architecture, size) | {"ohlora.haar": haar}
    return graph.model("synthesis", inputs, outputs, properties)


class _SynthesisGraph(GraphBuilder):
    """cut: the last resolution; blocks behind it stay there, and the head doubles what they give."""

    def __init__(self, arrays: Arrays, architecture: Architecture, haar: Haar, cut: int) -> None:
        super().__init__(opset=OPSET)
        self.arrays, self.architecture, self.haar, self.cut = arrays, architecture, haar, cut

    def weight(self, name: str) -> str:
        return self.constant(f"synthesis.{name}", self.arrays[f"synthesis.{name}"])

    def image(self, size: int) -> str:
        """Name of the float image [N,3,size,size]."""
        architecture = self.architecture
        styles = self.styles()
        x = self.add("Mul", [self.weight("const"), styles["first"]], "first.modulated")
        x = self.add("Conv", [x, self.weight("first.weight"), self.weight("first.bias")], "first.conv", pads=[1] * 4)
        x = self.activated(x, "first")
        for block in architecture.blocks:
            x = self.add("Mul", [x, styles[f"{block.name}.up"]], f"{block.name}.up.modulated")
            if block.resolution <= self.cut:
                x = self.upsampled(x, block)
            x = self.depthwise(x, f"{block.name}.conv1")
            x = self.add("Mul", [x, styles[f"{block.name}.conv2"]], f"{block.name}.conv2.modulated")
            x = self.depthwise(x, f"{block.name}.conv2")
        x = self.add("Mul", [x, styles["head"]], "head.modulated")
        doubled = size == 2 * min(self.cut, architecture.blocks[-1].resolution)
        step = 1 if doubled else architecture.resolution // 2 // size
        x = self.add("Conv", [x, self.weight("head.weight"), self.weight("head.bias")], "head", strides=[step, step])
        if doubled:
            x = self.add("DepthToSpace", [x], "head.pixels", blocksize=2, mode="CRD")
        return x

    def styles(self) -> dict[str, str]:
        """Layer -> [N,C,1,1], one matrix product a row of wp. conv1's are in up's: that of every band, and of conv1."""
        found: dict[str, str] = {}
        for number, layers in enumerate(style_rows(self.architecture)):
            index = self.constant(f"row_{number}", np.int64(number))
            row = self.add("Gather", ["wp", index], f"wp.{number}", axis=1)
            weights = [self.weight(f"styles.{number}.{leaf}") for leaf in ("weight", "bias")]
            styles = self.add("Gemm", [row, *weights], f"styles.{number}", transB=1)
            if len(layers) == 2:
                styles = self.joint_style(styles, layers[0], self.architecture.blocks[(number - 1) // 2])
            found[layers[0]] = self.add("Unsqueeze", [styles, self.integers(2, 3)], f"{layers[0]}.style")
        return found

    def joint_style(self, styles: str, up: str, block: Block) -> str:
        """up's styles and behind them conv1's, [N, C + C/4] -> their products, one for each band, [N, C]."""
        bands, coarse = f"{up}.bands", f"{up}.conv1"
        lengths = self.integers(block.inputs, block.coarse)
        self.nodes.append(
            onnx.helper.make_node("Split", [styles, lengths], [bands, coarse], name=f"{up}.split", axis=1)
        )
        grouped = self.haar == "grouped"
        shapes = (
            ((0, block.coarse, BANDS), (0, block.coarse, 1))
            if grouped
            else ((0, BANDS, block.coarse), (0, 1, block.coarse))
        )
        pair = [
            self.add("Reshape", [x, self.integers(*s)], f"{x}.table")
            for x, s in zip((bands, coarse), shapes, strict=True)
        ]
        return self.add("Reshape", [self.add("Mul", pair, f"{up}.joint"), self.integers(0, block.inputs)], f"{up}.flat")

    def upsampled(self, x: str, block: Block) -> str:
        """Through the inverse Haar transform."""
        name = f"{block.name}.up"
        if self.haar == "grouped":
            x = self.add("Conv", [x, self.weight(f"{name}.haar")], f"{name}.pixels", group=block.coarse)
            return self.add("DepthToSpace", [x], name, blocksize=2, mode="CRD")
        low, b0, b1, b2 = (f"{name}.band_{k}" for k in range(BANDS))
        lengths = self.integers(*[block.coarse] * BANDS)
        self.nodes.append(
            onnx.helper.make_node("Split", [x, lengths], [low, b0, b1, b2], name=f"{name}.split_bands", axis=1)
        )
        a, b = (self.add(kind, [low, b0], f"{name}.{kind}_low") for kind in ("Add", "Sub"))
        d, e = (self.add(kind, [b1, b2], f"{name}.{kind}_high") for kind in ("Add", "Sub"))
        pairs = (("Add", a, d), ("Sub", a, d), ("Add", b, e), ("Sub", b, e))
        phases = [self.add(kind, [u, v], f"{name}.pixel_{p}") for p, (kind, u, v) in enumerate(pairs)]
        doubled = self.add("Concat", phases, f"{name}.doubled", axis=1)
        halved = self.add("Mul", [doubled, self.number(0.5)], f"{name}.pixels")
        return self.add("DepthToSpace", [halved], name, blocksize=2, mode="DCR")

    def depthwise(self, x: str, layer: str) -> str:
        channels = self.arrays[f"synthesis.{layer}.dw.weight"].shape[0]
        x = self.add("Conv", [x, self.weight(f"{layer}.dw.weight")], f"{layer}.dw", group=channels, pads=[1] * 4)
        x = self.add("Conv", [x, self.weight(f"{layer}.pw.weight"), self.weight(f"{layer}.bias")], f"{layer}.pw")
        return self.activated(x, layer)

    def activated(self, x: str, layer: str) -> str:
        x = self.add("Add", [x, self.weight(f"{layer}.noise")], f"{layer}.noisy")
        return self.add("LeakyRelu", [x], layer, alpha=SLOPE)

    def bytes_of(self, image: str) -> None:
        """The cast truncates, which is floor here: no value is negative."""
        one = self.add("Add", [image, self.number(1.0)], "from_zero")
        levels = self.add("Mul", [one, self.number(127.5)], "levels")
        nearest = self.add("Add", [levels, self.number(0.5)], "nearest")
        inside = self.add("Clip", [nearest, self.number(0.0), self.number(255.0)], "inside")
        self.add("Transpose", [self.cast(inside, "uint8", "bytes")], "image", perm=[0, 2, 3, 1])


def _properties(role: str, architecture: Architecture, size: int) -> dict[str, str]:
    numbers = {
        "resolution": size,
        "layers": architecture.layers,
        "z_size": architecture.z_size,
        "w_size": architecture.w_size,
        "label_size": 0,
    }
    return {"ohlora.role": role} | {f"ohlora.{name}": str(value) for name, value in numbers.items()}


def without_weights(model: onnx.ModelProto, names: Mapping[str, object], location: str) -> onnx.ModelProto:
    """A copy whose initializers of these names keep type and shape only, as data that lie elsewhere."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        if tensor.name in names:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=location)
    return bare


def weightless_graphs(architecture: Architecture, sizes: tuple[int, ...], location: str) -> dict[str, bytes]:
    """File name -> bytes of 'mapping.onnx' and 'synthesis-SIZE.onnx', which need `fill_graph` before they run."""
    zeros = {name: np.zeros(shape, np.float32) for name, shape in architecture.shapes().items()}
    mapping = mapping_arrays(zeros, architecture)
    graphs = {"mapping.onnx": without_weights(mapping_graph(mapping, architecture), mapping, location)}
    for size in sizes:
        arrays = synthesis_arrays(zeros, architecture, size)
        graph = synthesis_graph(arrays, architecture, size)
        graphs[f"synthesis-{size}.onnx"] = without_weights(graph, arrays, location)
    return {name: graph.SerializeToString(deterministic=True) for name, graph in graphs.items()}


def write_weightless(folder: Path | str) -> None:
    """Write the graphs that ship into `ohlora/bundle/photo` of a checkout."""
    from ohlora.bundle.photo.random_face import random_face

    for name, data in weightless_graphs(FFHQ, (1024, 512, 256), random_face().title).items():
        write_bytes(Path(folder) / name, data)
