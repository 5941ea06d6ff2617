"""The photographic generator's graphs: against the literal network, without weights, and filled again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from ohlora.bundle.photo.architecture import FFHQ, Architecture
from ohlora.bundle.photo.fill_graph import fill_graph
from ohlora.bundle.photo.mean_latent import mapped
from ohlora.bundle.photo.random_face import State, random_face
from ohlora.bundle.photo.reference import Reference
from ohlora.bundle.photo.rewrites import HAARS, Haar, mapping_arrays, synthesis_arrays
from ohlora.engines import backend_report, open_engine
from ohlora.engines.model_file import read_model_file
from ohlora.engines.onnx_torch.mixed_precision import lower
from ohlora.errors import EngineError
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.graphs.mobilestylegan import (
    OPSET,
    mapping_graph,
    synthesis_graph,
    weightless_graphs,
    without_weights,
    write_weightless,
)
from tests.support.random_faces import SMALL, real_wheel, small_state

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "ohlora" / "bundle" / "photo"


def rows(count: int, architecture: Architecture = SMALL) -> NDArray[np.float32]:
    """wp whose rows all differ."""
    stream = np.random.Generator(np.random.Philox(key=5))
    return stream.standard_normal((count, architecture.layers, architecture.w_size)).astype(np.float32)


def graph(state: State, size: int, haar: Haar = "grouped", architecture: Architecture = SMALL, **options: Any) -> Any:
    return synthesis_graph(synthesis_arrays(state, architecture, size, haar), architecture, size, haar, **options)


def psnr(made: NDArray[Any], expected: NDArray[Any]) -> float:
    return 10 * float(np.log10(255.0**2 / np.mean((made.astype(float) - expected.astype(float)) ** 2)))


@pytest.mark.parametrize("haar", HAARS)
@pytest.mark.parametrize("size", [64, 32, 16, 8])
def test_graph_is_the_network(size: int, haar: Haar) -> None:
    state, wp = small_state(), rows(3)
    expected = np.stack([Reference(state, SMALL, row).image(size) for row in wp])
    made = run_graph(graph(state, size, haar, float_output=True), {"wp": wp})[0]
    assert np.abs(made - expected).max() < 2e-6 * max(1.0, np.abs(expected).max())
    levels = run_graph(graph(state, size, haar), {"wp": wp})[0]
    assert (levels.dtype, levels.shape) == (np.uint8, (3, size, size, 3))
    exact = np.stack([Reference(state, SMALL, row).levels(size) for row in wp])
    difference = np.abs(levels.astype(int) - exact)
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 1e-3
    assert np.mean((levels > 0) & (levels < 255)) > 0.2


def test_mapping_is_the_network() -> None:
    state = small_state()
    z = np.random.default_rng(0).standard_normal((5, SMALL.z_size)).astype(np.float32)
    made = run_graph(mapping_graph(mapping_arrays(state, SMALL), SMALL), {"z": z})[0]
    np.testing.assert_allclose(made, mapped(state, SMALL, z), atol=1e-5)


def test_form_of_the_graph() -> None:
    model = graph(small_state(), 64)
    assert [entry.version for entry in model.opset_import] == [OPSET]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Gemm") == SMALL.layers
    assert kinds.count("DepthToSpace") == len(SMALL.channels) + 1
    assert "ConvTranspose" not in kinds
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert (properties["ohlora.resolution"], properties["ohlora.layers"]) == ("64", "8")


@pytest.mark.parametrize(
    ("backend", "precision"), [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")]
)
def test_engines_take_it(tmp_path: Path, backend: str, precision: str) -> None:
    state, wp = small_state(), rows(3)
    path = tmp_path / "synthesis.onnx"
    path.write_bytes(graph(state, 64).SerializeToString())
    status = backend_report([backend])[0]
    if not status.available or (precision == "bf16" and not status.bf16):
        pytest.skip(f"{backend} does not compute in {precision} here: {status.detail}")
    expected = np.stack([Reference(state, SMALL, row).levels(64) for row in wp])
    with open_engine(path, backend=backend, precision=precision, threads=2) as engine:
        made = engine(wp=wp)["image"]
    if precision == "fp32":
        assert np.abs(made.astype(int) - expected).max() <= 1
    else:
        assert psnr(made, expected) > 40


def test_float16_does_not_overflow() -> None:
    """Scales are in the affines, so nothing grows large on the way."""
    wp = rows(2)
    made = run_graph(lower(graph(small_state(), 64), "float16"), {"wp": wp})[0]
    expected = np.stack([Reference(small_state(), SMALL, row).levels(64) for row in wp])
    assert psnr(made, expected) > 55


def test_the_shipped_graphs_are_what_the_code_writes(tmp_path: Path) -> None:
    write_weightless(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["mapping.onnx", "synthesis-1024.onnx", "synthesis-256.onnx", "synthesis-512.onnx"]
    for name in names:
        same = (SHIPPED / name).read_bytes() == (tmp_path / name).read_bytes()
        assert same, f"{name} is outdated: python -c 'from ohlora.export.graphs.mobilestylegan import *; " + (
            'write_weightless("ohlora/bundle/photo")\''
        )


@pytest.mark.parametrize("name", ["mapping", "synthesis-1024", "synthesis-512", "synthesis-256"])
def test_the_shipped_graphs_hold_no_weights(name: str) -> None:
    path = SHIPPED / f"{name}.onnx"
    assert path.stat().st_size < 30_000
    model = onnx.load_from_string(path.read_bytes())
    outside = {tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL}
    for tensor in model.graph.initializer:
        if tensor.name not in outside:  # numbers of the architecture: rows, shapes, axes, and those of grey levels
            values = onnx.numpy_helper.to_array(tensor)
            assert values.size <= 4
            assert values.dtype == np.int64 or tensor.name.startswith("number_")
    zeros = {key: np.zeros(shape, np.float32) for key, shape in FFHQ.shapes().items()}
    arrays = mapping_arrays(zeros, FFHQ)
    if name != "mapping":
        arrays = synthesis_arrays(zeros, FFHQ, int(name.partition("-")[2]))
    assert outside == set(arrays)
    with pytest.raises(EngineError, match="keeps weights"):
        read_model_file(path)


@pytest.mark.parametrize("name", ["mapping.onnx", "synthesis-64.onnx", "synthesis-16.onnx"])
def test_filled_graphs_are_the_exported_ones(name: str) -> None:
    state = small_state()
    arrays = mapping_arrays(state, SMALL)
    expected = mapping_graph(arrays, SMALL)
    if name != "mapping.onnx":
        size = int(name.removesuffix(".onnx").partition("-")[2])
        arrays = synthesis_arrays(state, SMALL, size)
        expected = synthesis_graph(arrays, SMALL, size)
    bare = weightless_graphs(SMALL, (64, 16), "small-face 1.0")[name]
    filled = fill_graph(bare, arrays)
    model = onnx.load_from_string(filled)
    onnx.checker.check_model(model, full_check=True)
    assert model == expected


def test_some_initializers_can_be_exchanged() -> None:
    """As for another draw of the noise."""
    state, wp = small_state(), rows(1)
    model = graph(state, 64).SerializeToString()
    name = "synthesis.block32.conv1.noise"
    state[name] = state[name] * -2
    changed = fill_graph(model, {name: state[name]})
    assert len(changed) == len(model)
    made = run_graph(onnx.load_from_string(changed), {"wp": wp})[0][0]
    assert np.abs(made.astype(int) - Reference(state, SMALL, wp[0]).levels(64)).max() <= 1


def test_typed_data_is_replaced_too() -> None:
    tensor = onnx.helper.make_tensor("a", onnx.TensorProto.FLOAT, (2,), [1.0, 2.0])  # as float_data
    tensor.doc_string = "kept"
    node = onnx.helper.make_node("Add", ["x", "a"], ["y"])
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ("N", 2)) for n in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", value[:1], value[1:], [tensor]))
    filled = onnx.load_from_string(fill_graph(model.SerializeToString(), {"a": np.float32([5, 6])}))
    assert onnx.numpy_helper.to_array(filled.graph.initializer[0]).tolist() == [5, 6]
    assert filled.graph.initializer[0].doc_string == "kept"
    assert not filled.graph.initializer[0].float_data


def test_weights_of_another_graph_are_refused() -> None:
    arrays = mapping_arrays(small_state(), SMALL)
    bare = weightless_graphs(SMALL, (), "small-face 1.0")["mapping.onnx"]
    name = "mapping.fc0.bias"
    with pytest.raises(EngineError, match=f"no data for the graph's initializer {name}"):
        fill_graph(bare, {key: value for key, value in arrays.items() if key != name})
    with pytest.raises(EngineError, match="has no initializer other"):
        fill_graph(bare, arrays | {"other": arrays[name]})
    with pytest.raises(EngineError, match=rf"initializer {name} is float32 \[24\], got float32 \[23\]"):
        fill_graph(bare, arrays | {name: arrays[name][:-1]})
    with pytest.raises(EngineError, match=rf"initializer {name} is float32 \[24\], got float64 \[24\]"):
        fill_graph(bare, arrays | {name: arrays[name].astype(np.float64)})  # type: ignore[dict-item]
    for damaged in (bare[:-3], b"\xff" * 40):
        with pytest.raises(EngineError, match="not an ONNX model"):
            fill_graph(damaged, arrays)


def test_an_initializer_of_another_type_is_refused() -> None:
    bare = onnx.load_from_string(weightless_graphs(SMALL, (), "small-face 1.0")["mapping.onnx"])
    next(t for t in bare.graph.initializer if t.name == "mapping.fc0.bias").data_type = onnx.TensorProto.FLOAT16
    with pytest.raises(EngineError, match="is not float32"):
        fill_graph(bare.SerializeToString(), mapping_arrays(small_state(), SMALL))


def test_without_weights_leaves_the_model_alone() -> None:
    arrays = mapping_arrays(small_state(), SMALL)
    model = mapping_graph(arrays, SMALL)
    before = model.SerializeToString()
    without_weights(model, arrays, "elsewhere")
    assert model.SerializeToString() == before


@pytest.mark.parametrize("size", [1024, 512, 256])
def test_the_real_network(shared: Path, size: int) -> None:
    """Filled from the package's bytes: the reference data, and the float64 evaluation, within their tolerances."""
    package = random_face()
    state = package.read(real_wheel())
    with np.load(shared / "golden" / "mobilestylegan" / "mobilestylegan_mixed.npz") as file:
        data = {name: file[name] for name in file.files}
    model = graph(state, size, architecture=FFHQ, float_output=True)
    image = run_graph(model, {"wp": data["wp"]})[0][0].astype(np.float64)
    if size == 1024:
        difference = image.reshape(3, -1)[:, data["pos"]] - data["pixels"]
        assert np.abs(difference).max() < 1e-3
        assert np.sqrt(np.mean(difference**2)) < 4e-6
    part = size // 64
    assert np.abs(image.reshape(3, 64, part, 64, part).mean((2, 4)) - data["small64"]).max() < 1e-4
    filled = fill_graph((SHIPPED / f"synthesis-{size}.onnx").read_bytes(), synthesis_arrays(state, FFHQ, size))
    levels = run_graph(onnx.load_from_string(filled), {"wp": data["wp"]})[0][0]
    exact = Reference(state, FFHQ, data["wp"][0]).levels(size)
    difference = np.abs(levels.astype(int) - exact)
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 1e-3
