"""The torch backend: every translated operation and whole networks against ONNX Runtime; devices that are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra runs this backend")
onnx = pytest.importorskip("onnx", reason="the train extra reads graphs")

from onnx import TensorProto  # noqa: E402

from ohlora.bundle import Bundle  # noqa: E402
from ohlora.engines import BACKENDS, backend_report, open_engine  # noqa: E402
from ohlora.engines.onnx_torch.torch_backend import cuda_device  # noqa: E402
from ohlora.engines.onnx_torch.torch_graph import torch_graph  # noqa: E402
from ohlora.engines.onnx_torch.torch_ops import OPS  # noqa: E402
from ohlora.errors import EngineError  # noqa: E402
from ohlora.export.graphs.from_torch import run_graph  # noqa: E402
from ohlora.export.graphs.passes import subpixel  # noqa: E402
from tests.support.demo_networks import demo_network  # noqa: E402
from tests.support.single_node import one_node  # noqa: E402

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# operation -> (inputs that vary, constants, attributes); names give the order. Sized so that every axis differs.
X, Y = floats(2, 3, 6, 5), floats(2, 3, 6, 5)
POSITIVE = np.abs(X) + 0.5
CASES: dict[str, list[tuple[list[np.ndarray], list[np.ndarray | None], dict[str, Any]]]] = {
    **{name: [([X], [], {})] for name in (
        "Abs", "Cos", "Erf", "Exp", "Flatten", "Floor", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity",
        "Neg", "Relu", "Round", "Sigmoid", "Sin", "Softplus", "Softmax", "Tanh", "Transpose", "LeakyRelu",
    )},
    **{name: [([POSITIVE], [], {})] for name in ("Log", "Reciprocal", "Sqrt")},
    **{name: [([X, Y], [], {}), ([X], [floats(5)], {})] for name in (
        "Add", "Sub", "Mul", "Max", "Min", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Sum",
    )},
    "Gelu": [([X], [], {}), ([X], [], {"approximate": "tanh"})],
    "Div": [([X, POSITIVE], [], {}), ([integers(7, -7, 9)], [integers(2, 2, -4)], {})],
    "Equal": [([integers(1, 2, 3)], [integers(1, 0, 3)], {})],
    "Mod": [([integers(361, 5, 720)], [integers(360)], {})],
    "And": [([X > 0, Y > 0], [], {})],
    "Or": [([X > 0, Y > 0], [], {})],
    "Not": [([X > 0], [], {})],
    "Where": [([X > 0, X, Y], [], {})],
    "Pow": [([POSITIVE], [np.float32(2.5)], {})],
    "PRelu": [([X], [floats(3, 1, 1)], {})],
    "Clip": [([X], [np.float32(-0.5), np.float32(0.7)], {}), ([X], [None, np.float32(0.7)], {})],
    "Cast": [([X], [], {"to": TensorProto.INT32}), ([X * 50 + 128], [], {"to": TensorProto.UINT8})],
    "Concat": [([X, Y], [], {"axis": 1})],
    "Conv": [
        ([X], [floats(4, 3, 3, 3), floats(4)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ([X], [floats(3, 1, 3, 3)], {"pads": [0, 1, 2, 1], "group": 3}),
        ([X], [floats(4, 3, 2, 2)], {"dilations": [2, 2]}),
    ],
    "ConvTranspose": [
        ([X], [floats(3, 4, 4, 4)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ([X], [floats(3, 4, 3, 3), floats(4)], {"pads": [1, 1, 1, 1], "strides": [2, 2], "output_padding": [1, 1]}),
    ],
    "Gemm": [
        ([floats(2, 5)], [floats(4, 5), floats(4)], {"transB": 1}),
        ([floats(5, 2)], [floats(5, 4), floats(4)], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    ],
    "MatMul": [([X], [floats(5, 4)], {})],
    "InstanceNormalization": [([X], [floats(3), floats(3)], {"epsilon": 1e-3})],
    "BatchNormalization": [
        ([X], [floats(3), floats(3), floats(3), np.abs(floats(3)) + np.float32(0.5)], {"epsilon": 1e-3})
    ],
    "LayerNormalization": [([X], [floats(5), floats(5)], {"axis": -1})],
    "MaxPool": [([X], [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})],
    "AveragePool": [([X], [], {"kernel_shape": [2, 2], "strides": [2, 2]})],
    "Resize": [
        ([X], [None, np.array([1, 1, 2, 2], np.float32)], {"mode": "nearest", "nearest_mode": "floor",
                                                           "coordinate_transformation_mode": "asymmetric"}),
        ([X], [None, None, integers(2, 3, 9, 11)], {"mode": "nearest", "nearest_mode": "floor",
                                                    "coordinate_transformation_mode": "asymmetric"}),
        ([X], [None, None, integers(2, 3, 9, 11)], {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}),
        ([X], [None, None, integers(2, 3, 9, 11)], {"mode": "cubic", "cubic_coeff_a": -0.75,
                                                    "coordinate_transformation_mode": "half_pixel"}),
    ],
    "DepthToSpace": [([floats(2, 8, 3, 2)], [], {"blocksize": 2, "mode": "CRD"})],
    "Slice": [([X], [integers(1, -4), integers(-1, 2**31), integers(2, 3), integers(2, 1)], {})],
    "Split": [([X], [integers(2, 3)], {"axis": 3}), ([X], [], {"axis": 2, "num_outputs": 2})],
    "Squeeze": [([floats(2, 1, 3)], [integers(1)], {})],
    "Unsqueeze": [([X], [integers(0, 3)], {})],
    "Reshape": [([X], [integers(0, -1, 5)], {}), ([X, integers(2, -1, 5)], [], {"allowzero": 1})],
    "Expand": [([floats(2, 1, 5)], [integers(1, 4, 1)], {}), ([floats(2, 1, 5), integers(1, 4, 1)], [], {})],
    "Shape": [([X], [], {}), ([X], [], {"start": 1, "end": 3})],
    "Gather": [([X], [integers(2, -1)], {"axis": 1}), ([X], [np.array(1, np.int64)], {"axis": 2})],
    "Pad": [([X], [integers(0, 0, 1, 2, 0, 0, 3, 0), np.float32(1.5)], {})],
    "ArgMax": [([X], [], {"axis": 1, "keepdims": 0})],
    "ArgMin": [([X], [], {"axis": 2})],
    "QuantizeLinear": [([X], [np.float32(0.02), np.array(120, np.uint8)], {}),
                       ([X], [np.float32(0.02), np.array(0, np.int8)], {})],
    "DequantizeLinear": [
        ([RNG.integers(-128, 127, (4, 3)).astype(np.int8)], [floats(4), np.zeros(4, np.int8)], {"axis": 0}),
        ([RNG.integers(0, 255, (4, 3)).astype(np.uint8)], [np.float32(0.1), np.array(7, np.uint8)], {}),
    ],
    **{name: [([X], [integers(2, 3)], {"keepdims": 0}), ([X], [], {})] for name in (
        "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL2",
    )},
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(OPS))
def test_every_operation_is_onnx_runtimes(kind: str) -> None:
    assert kind in CASES, "an operation without a case is not known to be right"
    for inputs, constants, attributes in CASES[kind]:
        model = one_node(kind, inputs, constants, attributes)
        wanted = run_graph(model, {f"x{i}": value for i, value in enumerate(inputs)})
        module = torch_graph(model.SerializeToString())
        made = module(*[torch.from_numpy(value) for value in inputs])
        for one, other in zip(made, wanted, strict=True):
            assert one.numpy().dtype == other.dtype
            np.testing.assert_allclose(one.numpy(), other, atol=2e-6, rtol=2e-5)


def engines(model: Any, tmp_path: Path, precision: str = "fp32") -> Any:
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return open_engine(tmp_path / "model.onnx", backend="torch", precision=precision)


@pytest.mark.parametrize("name", ["mapping", "synthesis", "hair", "subpixel", "portrait", "recolor"])
def test_networks_are_onnx_runtimes(name: str, tmp_path: Path) -> None:
    model, inputs = demo_network(name)
    model = subpixel(model) if name == "subpixel" else model
    wanted = run_graph(model, inputs)
    with engines(model, tmp_path) as engine:
        made = engine(**inputs)
        assert (engine.backend, engine.precision) == ("torch", "fp32")
        assert [tensor.name for tensor in engine.spec.outputs] == [tensor.name for tensor in model.graph.output]
    for (key, value), other in zip(made.items(), wanted, strict=True):
        assert value.dtype == other.dtype, key
        apart = np.abs(value.astype(np.float64) - other)
        # The hair of a picture that differs by single levels differs a little too.
        allowed = 1 if value.dtype == np.uint8 else (2e-2 if name == "portrait" else 1e-3)
        assert apart.max() <= allowed, key
        assert value.dtype != np.uint8 or (apart > 0).mean() <= 1e-3, key


@pytest.mark.parametrize(("precision", "decibels"), [("bf16", 40), ("fp16", 55)])
def test_lower_precision_keeps_the_picture(precision: str, decibels: float, tmp_path: Path) -> None:
    bundle = Bundle.open("demo")
    part = bundle.generator_part()
    model = onnx.load(bundle.file(part.synthesis))
    w = run_graph(onnx.load(bundle.file(part.mapping)), {"z": floats(2, part.z_size)})[0]
    inputs = {"wp": np.repeat(w[:, None], part.num_layers, axis=1)}
    exact = run_graph(model, inputs)[0].astype(float)
    with engines(model, tmp_path, precision) as engine:
        made = engine(**inputs)["image"]
    error = np.mean((made - exact) ** 2)
    assert error > 0
    assert 10 * np.log10(255**2 / error) >= decibels


def test_it_is_never_chosen_by_itself() -> None:
    assert [entry.name for entry in BACKENDS if not entry.automatic] == ["torch"]
    status = {row.name: row for row in backend_report()}["torch"]
    assert status.available
    assert status.version == torch.__version__
    assert [row.name for row in backend_report(["onnxruntime"])] == ["onnxruntime"]


def test_what_is_not_translated_is_named(tmp_path: Path) -> None:
    model = one_node("Relu", [X], [], {})
    model.graph.node[0].op_type = "Celu"
    with pytest.raises(EngineError, match=r"Celu \(node 'node'\): use another backend"):
        torch_graph(model.SerializeToString())
    order = one_node("DepthToSpace", [floats(1, 4, 2, 2)], [], {"blocksize": 2, "mode": "DCR"})
    with pytest.raises(EngineError, match="order DCR"):
        torch_graph(order.SerializeToString())
    with pytest.raises(EngineError, match="not an ONNX model"):
        torch_graph(b"\x08")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:99"])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(EngineError, match=r"unknown device|no CUDA device|was asked for|without CUDA"):
        cuda_device(name)
