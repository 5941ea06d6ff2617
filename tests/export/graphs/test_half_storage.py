"""Float16 storage: smaller files, the same graph once it is loaded, and pictures that nobody can tell apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ohlora.engines import open_engine
from ohlora.errors import EngineError
from ohlora.export.bundle import generator as export
from ohlora.export.bundle.generator import write_generator
from ohlora.export.graphs import half_storage
from ohlora.export.graphs.generator import STORAGES
from ohlora.export.graphs.half_storage import NoiseOffset, WidenedKernel, store_half
from ohlora.export.networks.compare import Comparison
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.nets.stylegan_layers import UpConv, widen
from tests.support.small_generators import SMALL, randomized

NO_LABEL = GeneratorConfig(resolution=32, z_size=32, w_size=32, channel_base=512, channel_max=32, fused_from=16)


@pytest.fixture(autouse=True)
def small_tensors_count(monkeypatch: pytest.MonkeyPatch) -> Any:
    # The tensors of a small generator are small, noise maps included.
    monkeypatch.setattr(half_storage, "HALF_FROM", 100)
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def generator() -> Generator:
    return randomized(NO_LABEL)


@pytest.fixture(scope="module")
def exports(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the generator exported with both storages."""
    made = {storage: tmp_path_factory.mktemp(storage) for storage in STORAGES}
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(half_storage, "HALF_FROM", 100)
        for storage in STORAGES:
            _, half = write_generator(generator, made[storage], storage)
    assert half["image_mean_grey_levels"] < 0.5
    assert 45 < half["image_psnr_db"] < 100
    assert half["image_max_grey_levels"] >= 1
    assert half["w_max_abs_error"] > 0
    return made


def model(**tensors: np.ndarray) -> onnx.ModelProto:
    """A graph that adds up its initialisers."""
    names = list(tensors)
    graph = helper.make_graph(
        [helper.make_node("Sum", names, ["y"])],
        "sum",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def value_of(proto: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {})[0]


def stored(proto: onnx.ModelProto) -> set[str]:
    """Names of the tensors in the file."""
    return {tensor.name for tensor in proto.graph.initializer}


def test_files_shrink(exports: dict[str, Path]) -> None:
    sizes = {
        storage: [(folder / name).stat().st_size for name in ("mapping.onnx", "synthesis.onnx")]
        for storage, folder in exports.items()
    }
    assert sizes["float16"][0] < 0.62 * sizes["float32"][0]
    # Node names weigh much in a graph this small; without them it is 0.33.
    assert sizes["float16"][1] < 0.55 * sizes["float32"][1]


def test_labels_and_the_other_collapse(tmp_path: Path) -> None:
    _, half = write_generator(randomized(SMALL), tmp_path, "float16", "subpixel")
    assert half["image_psnr_db"] > 45


def test_nothing_of_it_is_left_once_loaded(exports: dict[str, Path], tmp_path: Path) -> None:
    """Both engines fold casts, products and sums of constants when they load: the same operations remain."""
    openvino = pytest.importorskip("openvino")
    core, left = openvino.Core(), {}
    for storage in STORAGES:
        path = exports[storage] / "synthesis.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{storage}.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        folded = onnx.load(options.optimized_model_filepath).graph
        left[storage, "onnxruntime"] = Counter(node.op_type for node in folded.node)
        assert {tensor.data_type for tensor in folded.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
        for precision in ("f32", "bf16"):  # OpenVINO's own names
            network = core.read_model(path)
            network.reshape({"wp": [1, NO_LABEL.layers, NO_LABEL.w_size]})
            compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": precision})
            kinds = [op.get_rt_info()["layerType"].astype(str) for op in compiled.get_runtime_model().get_ops()]
            left[storage, precision] = Counter(kinds)
    for engine in ("onnxruntime", "f32", "bf16"):
        assert left["float16", engine] == left["float32", engine], engine


def test_engines_agree_on_stored_weights(exports: dict[str, Path]) -> None:
    path = exports["float16"] / "synthesis.onnx"
    wp = np.random.default_rng(0).standard_normal((3, NO_LABEL.layers, NO_LABEL.w_size)).astype(np.float32)
    images = []
    for backend in ("onnxruntime", "openvino"):
        with open_engine(path, backend=backend) as engine:
            images.append(engine(wp=wp)["image"].astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1


@pytest.mark.parametrize("factor", [1e-9, 1e-4, 1.0, 1e8])
def test_no_size_of_weights_is_lost(factor: float) -> None:
    weight = (np.random.default_rng(0).standard_normal((16, 40)) * factor).astype(np.float32)
    proto = model(weight=weight)
    store_half(proto)
    assert stored(proto) == {"weight_f16"} | ({"weight_unit"} if factor != 1.0 else set())
    assert proto.graph.initializer[0].data_type == TensorProto.FLOAT16
    made = value_of(proto)
    assert np.abs(made - weight).max() <= 2**-11 * np.abs(weight).max()


def test_a_channel_that_float16_would_lose_stays_float32() -> None:
    weight = np.ones((16, 40), np.float32)
    weight[3] *= 1e-8  # instance norm would make it as loud as the others
    proto = model(weight=weight)
    store_half(proto)
    assert stored(proto) == {"weight"}
    assert np.array_equal(value_of(proto), weight)
    weight[3] = 0  # nothing to lose
    proto = model(weight=weight)
    store_half(proto)
    assert stored(proto) == {"weight_f16"}


def test_small_tensors_stay() -> None:
    proto = model(bias=np.float32([1 / 3, 1e-9]))
    store_half(proto)
    assert stored(proto) == {"bias"}
    assert np.array_equal(value_of(proto), np.float32([1 / 3, 1e-9]))


@pytest.mark.parametrize("flipped", [False, True])
def test_upsampling_kernels_are_stored_narrow(flipped: bool) -> None:
    source = UpConv(6, 5, flipped=flipped)
    weight = source.weight * source.weight_gain
    weight = weight.flip(2, 3) if flipped else weight
    kernel = source.transposed_kernel().detach().contiguous().numpy()
    assert np.allclose(widen(weight).transpose(0, 1).detach().numpy(), kernel)
    proto = model(kernel=kernel)
    store_half(proto, {"kernel": WidenedKernel(weight.detach().numpy())})
    assert stored(proto) == {"kernel_3x3_f16", "kernel_right", "kernel_left"}
    assert value_of(proto).shape == (6, 5, 4, 4)
    assert np.abs(value_of(proto) - kernel).max() < 4 * 2**-11 * np.abs(weight.detach().numpy()).max()
    assert sum(np.prod(t.dims) for t in proto.graph.initializer) < kernel.size


def test_offsets_are_stored_as_noise_or_as_bias_alone() -> None:
    rng = np.random.default_rng(0)
    noise, strength, bias = (rng.standard_normal(s).astype(np.float32) for s in ((1, 1, 16, 16), (3,), (3,)))
    offset = noise * strength.reshape(1, 3, 1, 1) + bias.reshape(1, 3, 1, 1)
    proto = model(offset=offset)
    store_half(proto, {"offset": NoiseOffset(noise, strength, bias)})
    assert np.abs(value_of(proto) - offset).max() < 2e-3
    silent = np.zeros(3, np.float32)
    flat = np.broadcast_to(bias.reshape(1, 3, 1, 1), offset.shape).copy()
    proto = model(offset=flat)
    store_half(proto, {"offset": NoiseOffset(noise, silent, bias)})
    assert list(proto.graph.initializer[0].dims) == [1, 3, 1, 1]
    assert np.array_equal(value_of(proto), bias.reshape(1, 3, 1, 1))


def test_refusals(generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="weight holds NaN or infinity"):
        store_half(model(weight=np.full((16, 40), np.nan, np.float32)))
    bias = np.ones(3, np.float32)
    offset = NoiseOffset(np.ones((1, 1, 16, 16), np.float32), bias, bias)
    with pytest.raises(EngineError, match="no tensor elsewhere"):
        store_half(model(weight=np.ones((16, 40), np.float32)), {"elsewhere": offset})
    with pytest.raises(EngineError, match="is not what its source gives"):
        store_half(model(offset=np.ones((1, 3, 16, 16), np.float32)), {"offset": offset})
    with pytest.raises(EngineError, match=r"has shape \[1, 4, 16, 16\]"):
        store_half(model(offset=np.ones((1, 4, 16, 16), np.float32)), {"offset": offset})
    monkeypatch.setattr(export, "HALF", Comparison(least={"psnr_db": 90.0}))
    with pytest.raises(EngineError, match=r"stored as float16 .* psnr_db is .* at least 90; nothing was written"):
        write_generator(generator, tmp_path, storage="float16")
    assert not list(tmp_path.iterdir())
