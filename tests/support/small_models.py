"""Tiny ONNX models with the interfaces of the real ones, for engine and bundle tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the train extra (onnx) makes the models these tests run")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto

SIZE = 24
Z, LABEL, LAYERS, RESOLUTION = 6, 3, 2, 8


def save(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    constants: dict[str, np.ndarray],
) -> Path:
    """Write an ONNX model; inputs and outputs as name -> (element type, shape)."""
    sides = [
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in side.items()]
        for side in (inputs, outputs)
    ]
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "small", *sides, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def hair_model(path: Path, seed: int = 0, size: int = SIZE, batch: str | int = "N", gain: float = 1.0) -> Path:
    """image uint8 [N, s, s, 3] -> hair float32 [N, s, s]: convolution, instance norm, global mean, sigmoid.

    Sums over a whole picture are in it because their rounding is what betrays another batch or thread count.
    """
    rng = np.random.default_rng(seed)
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        node("Mul", ["x", "scale"], ["scaled"]),
        node("Transpose", ["scaled"], ["nchw"], perm=[0, 3, 1, 2]),
        node("Conv", ["nchw", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        node("InstanceNormalization", ["c1", "ones", "zeros"], ["n1"]),
        node("LeakyRelu", ["n1"], ["r1"], alpha=0.2),
        node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c2"], ["mean"]),
        node("Sub", ["c2", "mean"], ["centred"]),
        node("Sigmoid", ["centred"], ["p"]),
        node("Squeeze", ["p", "axis"], ["hair"]),
    ]
    constants = {
        "scale": np.float32(1 / 255),
        "w1": rng.standard_normal((16, 3, 3, 3)).astype(np.float32),
        "w2": (gain * rng.standard_normal((1, 16, 3, 3)) / 12).astype(np.float32),
        "ones": np.ones(16, np.float32),
        "zeros": np.zeros(16, np.float32),
        "axis": np.array([1], np.int64),
    }
    inputs = {"image": (TensorProto.UINT8, [batch, size, size, 3])}
    return save(path, nodes, inputs, {"hair": (TensorProto.FLOAT, [batch, size, size])}, constants)


def enlarging_hair_model(path: Path, size: int, gain: float = 1.0) -> Path:
    """As `hair_model`, at half the size inside: the map is enlarged at the end, as students do it."""
    rng = np.random.default_rng(3)
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        node("Mul", ["x", "scale"], ["scaled"]),
        node("Transpose", ["scaled"], ["nchw"], perm=[0, 3, 1, 2]),
        node("Conv", ["nchw", "w"], ["c"], pads=[0, 0, 1, 1], strides=[2, 2]),
        node("GlobalAveragePool", ["c"], ["mean"]),
        node("Sub", ["c", "mean"], ["centred"]),
        node("Resize", ["centred", "", "scales"], ["large"], mode="nearest", nearest_mode="floor",
             coordinate_transformation_mode="asymmetric"),
        node("Sigmoid", ["large"], ["p"]),
        node("Squeeze", ["p", "axis"], ["hair"]),
    ]  # fmt: skip
    constants = {
        "scale": np.float32(1 / 255),
        "w": (gain * rng.standard_normal((1, 3, 3, 3))).astype(np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "axis": np.array([1], np.int64),
    }
    inputs = {"image": (TensorProto.UINT8, ["N", size, size, 3])}
    return save(path, nodes, inputs, {"hair": (TensorProto.FLOAT, ["N", size, size])}, constants)


def mapping_model(path: Path, seed: int = 1, z: int = Z) -> Path:
    """z float32 [N, 6], label float32 [N, 3] -> w float32 [N, 6]."""
    weights = np.random.default_rng(seed).standard_normal((z + LABEL, z)) * ((Z + LABEL) / (z + LABEL)) ** 0.5
    weights = weights.astype(np.float32)
    nodes = [
        helper.make_node("Concat", ["z", "label"], ["x"], axis=1),
        helper.make_node("MatMul", ["x", "weights"], ["w"]),
    ]
    inputs = {"z": (TensorProto.FLOAT, ["N", z]), "label": (TensorProto.FLOAT, ["N", LABEL])}
    return save(path, nodes, inputs, {"w": (TensorProto.FLOAT, ["N", z])}, {"weights": weights})


def synthesis_model(path: Path, seed: int = 2, z: int = Z) -> Path:
    """wp float32 [N, 2, z] -> image uint8 [N, 8, 8, 3]."""
    rng = np.random.default_rng(seed)
    node = helper.make_node
    nodes = [
        node("Flatten", ["wp"], ["flat"]),
        node("MatMul", ["flat", "weights"], ["x"]),
        node("Mul", ["x", "scale"], ["scaled"]),
        node("Add", ["scaled", "shift"], ["shifted"]),
        node("Floor", ["shifted"], ["floor"]),
        node("Clip", ["floor", "low", "high"], ["clipped"]),
        node("Reshape", ["clipped", "shape"], ["picture"]),
        node("Cast", ["picture"], ["image"], to=TensorProto.UINT8),
    ]
    constants = {
        "weights": (rng.standard_normal((LAYERS * z, RESOLUTION * RESOLUTION * 3)) / 4 * (Z / z) ** 0.5).astype(
            np.float32
        ),
        "scale": np.float32(127.5),
        "shift": np.float32(128),
        "low": np.float32(0),
        "high": np.float32(255),
        "shape": np.array([-1, RESOLUTION, RESOLUTION, 3], np.int64),
    }
    outputs = {"image": (TensorProto.UINT8, ["N", RESOLUTION, RESOLUTION, 3])}
    return save(path, nodes, {"wp": (TensorProto.FLOAT, ["N", LAYERS, z])}, outputs, constants)
