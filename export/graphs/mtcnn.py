"""facenet-pytorch's three face networks (the files in its wheel, MIT) -> ONNX files of the runtime's face detector.

    python -m ohlora.export.graphs.mtcnn OUT_FOLDER

The graphs are written out by hand: the networks are chains of a dozen layers, and the proposal network's picture has
two free sides, which the tracing exporter would have to be told about pool by pool.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from ohlora.base.atomic import make_folder, write_bytes, write_json
from ohlora.export.graphs.builder import GraphBuilder
from ohlora.training.teachers.mtcnn import State, published_weights

SOURCE = "facenet-pytorch"
LICENSE = "MIT"


@dataclass(frozen=True)
class Net:
    """One network: the layers up to its heads. A layer is a convolution's key or ("pool", kernel)."""

    side: int | None  # of the input; None: free
    trunk: tuple[str | int, ...]  # "conv1" is a convolution and its PReLU; 3 a max-pool of that kernel, stride 2
    dense: str | None
    probability: str
    box: str
    points: str | None = None


NETS = {
    "proposal": Net(None, ("conv1", 2, "conv2", "conv3"), None, "conv4_1", "conv4_2"),
    "refinement": Net(24, ("conv1", 3, "conv2", 3, "conv3"), "dense4", "dense5_1", "dense5_2"),
    "output": Net(48, ("conv1", 3, "conv2", 3, "conv3", 2, "conv4"), "dense5", "dense6_1", "dense6_2", "dense6_3"),
}


@dataclass
class _Graph(GraphBuilder):
    state: State = field(default_factory=dict)

    def layer(self, kind: str, x: str, key: str, output: str | None = None, **attributes: object) -> str:
        """A convolution or dense layer with its weight and bias."""
        weights = [self.constant(name, self.state[name]) for name in (f"{key}.weight", f"{key}.bias")]
        return self.add(kind, [x, *weights], output or key, **attributes)

    def conv(self, x: str, key: str) -> str:
        return self.layer("Conv", x, key)

    def dense(self, x: str, key: str, output: str | None = None) -> str:
        return self.layer("Gemm", x, key, output, transB=1)

    def prelu(self, x: str, key: str, trailing: tuple[int, ...]) -> str:
        slope = self.constant(f"{key}.weight", self.state[f"{key}.weight"].reshape(-1, *trailing))
        return self.add("PRelu", [x, slope], key)


def build(net: Net, state: State) -> onnx.ModelProto:
    """image float32 [N,H,W,3] RGB 0..255 -> probability, box, and landmarks where the network has them."""
    graph = _Graph(state=state)
    scale = graph.add("Sub", ["image", graph.constant("centre", np.float32(127.5))], "centred")
    scaled = graph.add("Mul", [scale, graph.constant("scale", np.float32(0.0078125))], "scaled")
    x = graph.add("Transpose", [scaled], "planes", perm=[0, 3, 1, 2])
    for position, layer in enumerate(net.trunk):
        if isinstance(layer, int):
            sides = {"kernel_shape": [layer, layer], "strides": [2, 2]}
            x = graph.add("MaxPool", [x], f"pool{position}", ceil_mode=1, **sides)
        else:
            x = graph.prelu(graph.conv(x, layer), f"prelu{layer[4:]}", (1, 1))
    if net.dense is not None:
        # Dense weights expect the order (width, height, channel).
        x = graph.add("Flatten", [graph.add("Transpose", [x], "turned", perm=[0, 3, 2, 1])], "flat")
        x = graph.prelu(graph.dense(x, net.dense), f"prelu{net.dense[5:]}", ())
        both = graph.add("Softmax", [graph.dense(x, net.probability)], "classes", axis=1)
        graph.dense(x, net.box, "box")
    else:
        heads = [graph.conv(x, net.probability), graph.conv(x, net.box)]
        both = graph.add("Softmax", [heads[0]], "classes", axis=1)
        graph.add("Transpose", [heads[1]], "box", perm=[0, 2, 3, 1])
    graph.add("Gather", [both, graph.constant("face", np.int64(1))], "probability", axis=1)
    places: tuple[str, ...] = () if net.side else ("rows", "columns")
    outputs: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "probability": ("float32", ("N", *places)), "box": ("float32", ("N", *places, 4)),
    }  # fmt: skip
    if net.points is not None:
        graph.dense(x, net.points, "landmarks")
        outputs["landmarks"] = ("float32", ("N", 10))
    if unused := set(state) - {tensor.name for tensor in graph.weights}:
        raise ValueError(f"weights that no layer uses: {', '.join(sorted(unused))}")
    return graph.model("mtcnn", {"image": ("float32", ("N", net.side or "H", net.side or "W", 3))}, outputs)


def export(folder: Path) -> dict[str, object]:
    """Write the three files and detector.json into `folder`; returns what detector.json says."""
    make_folder(folder)
    files = {}
    for name, net in NETS.items():
        data = build(net, published_weights(name)).SerializeToString(deterministic=True)
        write_bytes(folder / f"{name}.onnx", data)
        files[f"{name}.onnx"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    record: dict[str, object] = {
        "what": "MTCNN face detection: proposal, refinement and output network, float32",
        "source": f"{SOURCE} {importlib.metadata.version(SOURCE)}, the weights inside its wheel",
        "license": LICENSE,
        "copyright": "2019 Timothy Esler",
        "files": files,
    }
    write_json(folder / "detector.json", record)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(json.dumps(export(parser.parse_args().folder), indent=1))


if __name__ == "__main__":
    main()
