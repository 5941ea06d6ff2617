"""Exact graph passes, resizes as matrices, lower types: each against what it replaces."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ohlora.bundle import Bundle
from ohlora.engines.onnx_torch.mixed_precision import lower
from ohlora.engines.onnx_torch.onnx_graphs import drop_unused, fold_constants
from ohlora.errors import EngineError
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.graphs.passes import subpixel
from ohlora.export.graphs.resize_matrices import area_matrix, cubic_matrix
from ohlora.photos.segmentation import resize_area


def upsampling(channels: tuple[int, int] = (5, 3), bias: bool = False, seed: int = 0) -> onnx.ModelProto:
    """x [N,5,H,W] -> y [N,3,2H,2W] by a transposed convolution whose kernel is made of a stored 3x3 in the graph."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Cast", ["half"], ["kernel"], name="widen", to=TensorProto.FLOAT),
        helper.make_node(
            "ConvTranspose", ["x", "kernel", *(["bias"] if bias else [])], ["y"], name="up",
            strides=[2, 2], pads=[1, 1, 1, 1],
        ),
    ]  # fmt: skip
    weights = [
        numpy_helper.from_array(rng.standard_normal((*channels, 4, 4)).astype(np.float16), "half"),
        numpy_helper.from_array(rng.standard_normal(channels[1]).astype(np.float32), "bias"),
        numpy_helper.from_array(np.ones(3, np.float32), "unused"),
    ]
    graph = helper.make_graph(
        nodes, "up",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels[0], "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", channels[1], None, None])],
        weights[: 3 if bias else 1] + ([weights[2]] if not bias else []),
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("bias", [False, True])
def test_subpixel_equals_the_transposed_convolution(bias: bool) -> None:
    model = upsampling(bias=bias)
    x = np.random.default_rng(1).standard_normal((2, 5, 6, 7)).astype(np.float32)
    made = subpixel(model)
    onnx.checker.check_model(made, full_check=True)
    assert "ConvTranspose" not in {node.op_type for node in made.graph.node}
    np.testing.assert_allclose(run_graph(made, {"x": x})[0], run_graph(model, {"x": x})[0], atol=2e-5)


def test_subpixel_leaves_other_strides_alone() -> None:
    model = upsampling()
    model.graph.node[1].attribute[0].ints[:] = [1, 1]
    assert "ConvTranspose" in {node.op_type for node in subpixel(model).graph.node}


def test_folding_keeps_the_function_and_drops_the_rest() -> None:
    model = upsampling()
    folded = fold_constants(model)
    assert [node.op_type for node in folded.graph.node] == ["ConvTranspose"]
    assert [tensor.name for tensor in folded.graph.initializer] == ["kernel"]
    x = np.random.default_rng(1).standard_normal((1, 5, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(run_graph(folded, {"x": x})[0], run_graph(model, {"x": x})[0])
    assert [node.op_type for node in fold_constants(model, ["Gemm"]).graph.node] == ["Cast", "ConvTranspose"]
    assert len(model.graph.node) == 2, "the argument is left as it is"


def test_bundle_networks_are_equal_in_subpixel_form() -> None:
    bundle = Bundle.open("demo")
    model = onnx.load(bundle.file(bundle.generator_part().synthesis))
    wp = np.random.default_rng(0).standard_normal((2, bundle.generator_part().num_layers, 512)).astype(np.float32)
    made = subpixel(model)
    apart = np.abs(run_graph(made, {"wp": wp})[0].astype(int) - run_graph(model, {"wp": wp})[0])
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 1e-3
    assert {node.op_type for node in drop_unused(made).graph.node} >= {"Conv", "DepthToSpace", "Slice"}


@settings(max_examples=25, deadline=None)
@given(source=st.integers(8, 300), target=st.integers(8, 300), seed=st.integers(0, 2**20))
@example(source=232, target=116, seed=0)
@example(source=240, target=80, seed=0)
def test_resizes_are_opencvs(source: int, target: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (source, source, 3)).astype(np.uint8)
    if target <= source:
        matrix = area_matrix(source, target)
        wanted = cv2.resize(image, (target, target), interpolation=cv2.INTER_AREA)
    else:
        matrix = cubic_matrix(source, target)
        wanted = cv2.resize(image, (target, target), interpolation=cv2.INTER_CUBIC)
    planes = image.astype(np.float32).transpose(2, 0, 1)
    values = matrix @ (planes @ matrix.T)
    rounded = np.floor(values + 0.5) if source == 2 * target else np.rint(values)
    made = np.clip(rounded, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    apart = np.abs(made.astype(int) - wanted)
    assert apart.max() <= 1
    # Where the sum is no half, which either side may round its own way, bytes are equal. OpenCV 4 rounds coefficients.
    settled = np.abs(values - np.floor(values) - 0.5).transpose(1, 2, 0) > 1e-3
    if int(cv2.__version__[0]) >= 5 or target <= source:
        assert not apart[settled].any()
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(source=st.integers(4, 230), target=st.integers(4, 300), seed=st.integers(0, 2**20))
def test_maps_are_resized_as_the_kernel_does(source: int, target: int, seed: int) -> None:
    hair = np.random.default_rng(seed).random((source, source)).astype(np.float32) * 255
    wanted = cv2.resize(hair, (target, target), interpolation=cv2.INTER_CUBIC)
    matrix = cubic_matrix(source, target)
    np.testing.assert_allclose(matrix @ (hair @ matrix.T), wanted, atol=2e-3)


def test_the_students_resize_is_the_runtimes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    matrix = area_matrix(256, 224)
    planes = image.astype(np.float32).transpose(2, 0, 1)
    made = np.rint(matrix @ (planes @ matrix.T)).astype(np.uint8).transpose(1, 2, 0)
    assert np.array_equal(made, resize_area(image, (224, 224)))
    with pytest.raises(ValueError, match="shrinks"):
        area_matrix(10, 20)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_lower_types_keep_statistics_and_bytes_in_float32(dtype: str) -> None:
    bundle = Bundle.open("demo")
    model = onnx.load(bundle.file(bundle.generator_part().synthesis))
    made = onnx.shape_inference.infer_shapes(lower(model, dtype))  # type: ignore[arg-type]
    low = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[dtype]
    types = {v.name: v.type.tensor_type.elem_type for v in (*made.graph.value_info, *made.graph.output)}
    by_kind: dict[str, set[int]] = {}
    for node in made.graph.node:
        by_kind.setdefault(node.op_type, set()).update(types[name] for name in node.output)
    assert by_kind["Conv"] == by_kind["ConvTranspose"] == by_kind["Gemm"] == {low}
    assert by_kind["InstanceNormalization"] == {TensorProto.FLOAT}
    last = [node for node in made.graph.node if node.op_type == "Clip"][-1]
    assert types[last.output[0]] == TensorProto.FLOAT, "levels are made in float32"
    if dtype == "float16":
        wp = np.random.default_rng(0).standard_normal((1, bundle.generator_part().num_layers, 512)).astype(np.float32)
        apart = run_graph(made, {"wp": wp})[0].astype(float) - run_graph(model, {"wp": wp})[0]
        assert 0 < np.sqrt(np.mean(apart**2)) < 1.5


def test_weights_that_float16_cannot_hold_are_named() -> None:
    model = upsampling()
    weight = numpy_helper.from_array(np.full((5, 3, 4, 4), 1e6, np.float32), "kernel")
    del model.graph.node[0]
    model.graph.initializer.append(weight)
    with pytest.raises(EngineError, match="kernel reaches 1e"):
        lower(model, "float16")
    assert lower(model, "bfloat16").graph.node
