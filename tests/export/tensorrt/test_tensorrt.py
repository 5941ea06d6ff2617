"""TensorRT: graphs made fit, engines built without a GPU, sidecars, and the runtime on a stand-in for the device."""

from __future__ import annotations

import ctypes
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ohlora.bundle import Bundle
from ohlora.engines.batches import BatchEngine, filled
from ohlora.engines.gpu.cuda_runtime import CudaRuntime, compute_capability
from ohlora.engines.gpu.device_memory import DeviceBuffer
from ohlora.engines.gpu.tensorrt_backend import TensorRtRunner, check_usable, open_tensorrt
from ohlora.engines.gpu.tensorrt_sidecar import Sidecar, read_engine, read_sidecar, sidecar_path
from ohlora.engines.spec import EngineSpec, TensorSpec
from ohlora.errors import EngineError, InvalidInputError
from ohlora.export.formats import Batch
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.graphs.portrait import portrait_graph
from ohlora.export.tensorrt.builder import available, build_engine
from ohlora.export.tensorrt.graph import bytes_outside
from tests.support.demo_networks import demo_network
from tests.support.small_models import hair_model, synthesis_model

needs_rtx = pytest.mark.skipif("tensorrt_rtx" not in available(), reason="tensorrt-rtx-cu13 is not installed")
SPEC = EngineSpec((TensorSpec("x", "float32", (None, 3)),), (TensorSpec("y", "float32", (None, 3)),))
SIDECAR = Sidecar("e" * 64, "m" * 64, "tensorrt_rtx", "1.7", ("8.9",), (1, 4, 8), "fp32", SPEC, "0", 1.0, 2)


@pytest.mark.parametrize("name", ["synthesis", "hair", "portrait", "recolor"])
def test_bytes_stay_outside_and_results_stay(name: str) -> None:
    model, inputs = demo_network(name)
    made = onnx.shape_inference.infer_shapes(bytes_outside(model))
    ends = {value.name for value in (*made.graph.input, *made.graph.output)}
    inner = [v.name for v in made.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.UINT8]
    assert not set(inner) - ends
    for one, other in zip(run_graph(made, inputs), run_graph(model, inputs), strict=True):
        assert one.dtype == other.dtype
        # Latents of the portrait are added in float32 then.
        allowed = {"portrait": 1 if one.dtype == np.uint8 else 2e-2}.get(name, 1e-6 if one.dtype != np.uint8 else 0)
        np.testing.assert_allclose(one.astype(float), other.astype(float), atol=allowed)


def build(tmp_path: Path, **changes: Any) -> Any:
    model = synthesis_model(tmp_path / "small.onnx")
    options = {"compute_capabilities": ("8.9",), "batch": Batch(1, 2, 4)} | changes
    return build_engine(model, tmp_path / "small.engine", **options)


@needs_rtx
def test_an_engine_and_its_sidecar(tmp_path: Path) -> None:
    built = build(tmp_path, compute_capabilities=("8.6", "8.9", "12.0"))
    sidecar, data = read_engine(tmp_path / "small.engine")
    assert len(data) > 1000
    assert sidecar == built
    assert sidecar.batch == (1, 2, 4)
    assert sidecar.compute_capabilities == ("8.6", "8.9", "12.0")
    assert [str(tensor) for tensor in sidecar.spec.inputs] == ["wp: float32 [N, 2, 6]"]
    assert [str(tensor) for tensor in sidecar.spec.outputs] == ["image: uint8 [N, 8, 8, 3]"]
    assert (sidecar.package, sidecar.precision) == ("tensorrt_rtx", "fp32")
    assert b"ohlora" not in data[:64], "metadata lie beside the engine, not in front of it"


@needs_rtx
def test_the_fused_portrait_builds_for_every_device() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        data = portrait_graph(Bundle.open("demo")).SerializeToString()
        built = build_engine(data, Path(folder) / "portrait.engine", compute_capabilities=("8.6", "8.9", "12.0"))
    names = [tensor.name for tensor in built.spec.inputs]
    assert names == ["z", "truncation", "expression", "ombre"]
    assert built.layers > 100


@needs_rtx
@pytest.mark.parametrize("form", ["fp16", "bf16", "int8"])
def test_lower_precision_builds(form: str, tmp_path: Path) -> None:
    from ohlora.export.lowering import tensorrt_form
    from ohlora.export.precision.quantize import calibrate, convolutions, quantize

    bundle = Bundle.open("demo")
    model = onnx.load(bundle.file(bundle.generator_part().synthesis))
    if form == "int8":
        small = onnx.load(hair_model(tmp_path / "hair.onnx"))
        for number, node in enumerate(small.graph.node):
            node.name = f"n{number}"
        row = {"image": np.zeros((1, 24, 24, 3), np.uint8)}
        found = convolutions(small, row)
        made = quantize(small, found, calibrate(small, found, [row], True), True)
    else:
        made = tensorrt_form(model, form)
    built = build_engine(made.SerializeToString(), tmp_path / "x.engine", compute_capabilities=("8.9",))
    assert built.precision in (form, "fp32")


@needs_rtx
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compute_capabilities": ("3.5",)}, "not '3.5'"),
        ({"compute_capabilities": ("8.9", "8.9")}, "once each"),
        ({"package": "trt"}, "unknown package 'trt': choose auto"),
    ],
)
def test_bad_builds_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        build(tmp_path, **changes)
    assert not (tmp_path / "small.engine").exists()


@needs_rtx
def test_operations_that_tensorrt_lacks_are_named(tmp_path: Path) -> None:
    from tests.support.single_node import one_node

    model = one_node("BitShift", [np.zeros((1, 4), np.uint64)], [np.array(1, np.uint64)], {"direction": "LEFT"})
    with pytest.raises(EngineError, match=r"cannot take this graph.*node"):
        build_engine(model.SerializeToString(), tmp_path / "x.engine", compute_capabilities=("8.9",))


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ohlora.export.tensorrt.builder.available", dict)
    with pytest.raises(EngineError, match="tensorrt_rtx is not installed: pip install tensorrt-rtx-cu13"):
        build(tmp_path)
    with pytest.raises(EngineError, match="tensorrt is not installed: pip install tensorrt"):
        build(tmp_path, package="tensorrt")


def test_engines_of_elsewhere_are_refused(tmp_path: Path) -> None:
    engine = tmp_path / "x.engine"
    check_usable(SIDECAR, "1.7", "8.9", engine)
    with pytest.raises(EngineError, match=r"built by tensorrt_rtx 1.7, here is 1.8"):
        check_usable(SIDECAR, "1.8", "8.9", engine)
    with pytest.raises(EngineError, match=r"for compute capability 8.9, this GPU has 9.0"):
        check_usable(SIDECAR, "1.7", "9.0", engine)
    with pytest.raises(EngineError, match="there is no sidecar"):
        open_tensorrt(engine)
    engine.write_bytes(b"engine")
    SIDECAR.write(engine)
    assert read_sidecar(engine) == SIDECAR
    with pytest.raises(EngineError, match="damaged or replaced"):
        open_tensorrt(engine)
    content = json.loads(sidecar_path(engine).read_text())
    sidecar_path(engine).write_text(json.dumps({**content, "extra": 1}))
    with pytest.raises(EngineError, match="damaged: build"):
        read_sidecar(engine)


class FakeCuda:
    """CUDA's library on ordinary memory: calls are noted, copies are real, a recorded graph is its launches."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.memory: dict[int, Any] = {}
        self.recording: list[Any] | None = None
        self.graphs: dict[int, list[Any]] = {}
        self.capability = (8, 9)

        def text(status: int) -> bytes:
            return b"no CUDA-capable device is detected"

        self.cudaGetErrorString = text

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            return int(getattr(self, f"do_{name}", lambda *a: 0)(*arguments) or 0)

        if name.startswith("do_"):
            raise AttributeError(name)
        return call

    def do_cudaGetDeviceCount(self, count: Any) -> None:
        count._obj.value = 1

    def do_cudaDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> None:
        value._obj.value = self.capability[attribute - 75]

    def _new(self, pointer: Any, size: int) -> None:
        block = (ctypes.c_uint8 * size)()
        pointer._obj.value = ctypes.addressof(block)
        self.memory[pointer._obj.value] = block

    def do_cudaMalloc(self, pointer: Any, size: Any) -> None:
        self._new(pointer, size.value)

    def do_cudaHostAlloc(self, pointer: Any, size: Any, flags: int) -> None:
        self._new(pointer, size.value)

    def do_cudaFree(self, pointer: Any) -> None:
        del self.memory[pointer.value]

    do_cudaFreeHost = do_cudaFree

    def do_cudaStreamCreateWithFlags(self, stream: Any, flags: int) -> None:
        stream._obj.value = 7

    def do_cudaMemcpyAsync(self, target: Any, source: Any, size: Any, kind: int, stream: Any) -> None:
        ctypes.memmove(target.value, source.value, size.value)

    def do_cudaStreamBeginCapture(self, stream: Any, mode: int) -> None:
        self.recording = []

    def do_cudaStreamEndCapture(self, stream: Any, graph: Any) -> None:
        graph._obj.value = 21

    def do_cudaGraphInstantiateWithFlags(self, ready: Any, graph: Any, flags: Any) -> None:
        ready._obj.value = 22
        self.graphs[22], self.recording = list(self.recording or []), None

    def do_cudaGraphLaunch(self, graph: Any, stream: Any) -> None:
        for work in self.graphs[graph.value]:
            work()


class FakeContext:
    """An engine that computes y = 2 x + 1 on the addresses it was given."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.at, self.shape = cuda, {}, ()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def set_tensor_address(self, name: str, pointer: int) -> None:
        self.at[name] = pointer

    def execute_async_v3(self, stream: int) -> bool:
        if self.cuda.recording is not None:
            self.cuda.recording.append(self._compute)
        else:
            self._compute()
        return True

    def _compute(self) -> None:
        size = int(np.prod(self.shape))
        x, y = ((ctypes.c_float * size).from_address(self.at[name]) for name in "xy")
        np.frombuffer(y, np.float32)[:] = 2 * np.frombuffer(x, np.float32) + 1


@pytest.fixture
def runner() -> TensorRtRunner:
    cuda = FakeCuda()
    return TensorRtRunner(FakeContext(cuda), CudaRuntime(cuda), SIDECAR, 0)


def test_calls_are_cut_into_buckets(runner: TensorRtRunner) -> None:
    cuda = runner._runtime._library
    engine = BatchEngine("small", runner, backend="tensorrt", precision="fp32", model_sha256="0" * 64)
    x = np.random.default_rng(0).standard_normal((11, 3)).astype(np.float32)
    cuda.calls.clear()
    np.testing.assert_allclose(engine(x=x)["y"], 2 * x + 1, rtol=1e-6)
    assert cuda.calls.count("cudaGraphLaunch") == 3, "4 + 4 + 3 rows, one recorded graph"
    assert "cudaMalloc" not in cuda.calls, "buffers were made once"
    assert engine(x=x[:0])["y"].shape == (0, 3)
    with pytest.raises(EngineError, match="expects x: float32"):
        engine(x=x.astype(np.float64))
    engine.close()
    assert not cuda.memory, "everything is freed"
    with pytest.raises(EngineError, match="is closed"):
        engine(x=x)


def test_arrays_on_the_device_are_taken_as_they_are(runner: TensorRtRunner) -> None:
    cuda = runner._runtime._library
    own = runner.buffer("x")
    np.frombuffer((ctypes.c_float * 12).from_address(own.pointer), np.float32)[:] = np.arange(12)
    cuda.calls.clear()
    made = runner.run_device({"x": own})["y"]
    assert cuda.calls == ["cudaGraphLaunch"], "its own buffer is not copied, and nothing waits"
    found = np.frombuffer((ctypes.c_float * 12).from_address(made.pointer), np.float32)
    np.testing.assert_allclose(found, 2 * np.arange(12) + 1)
    other = dataclasses.replace(own, pointer=own.pointer)
    assert other.__cuda_array_interface__["shape"] == (4, 3)
    with pytest.raises(EngineError, match=r"must be contiguous float32 \[4, 3\]"):
        runner.run_device({"x": DeviceBuffer(own.pointer, (3, 3), "float32", 7)})


def test_errors_of_the_device_are_named() -> None:
    cuda = FakeCuda()
    runtime = CudaRuntime(cuda)
    assert runtime.capability(0) == "8.9"
    with pytest.raises(EngineError, match="GPU 3 was asked for, this machine has 1"):
        runtime.use(3)
    cuda.do_cudaGetDeviceCount = lambda count: 100  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="no CUDA-capable device is detected"):
        runtime.device_count()


def test_without_a_gpu_a_build_names_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr("ohlora.engines.gpu.cuda_runtime.load_runtime", lambda: CudaRuntime(cuda))
    assert compute_capability(0) == "8.9"
    cuda.do_cudaGetDeviceCount = lambda count: 100  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="--compute-capability"):
        compute_capability(0)


def test_buckets_are_filled_with_the_last_row() -> None:
    rows = np.arange(6).reshape(3, 2)
    assert filled(rows, 3) is rows
    assert filled(rows, 5).tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
