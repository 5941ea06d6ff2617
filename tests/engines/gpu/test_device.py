"""Which engine a bundle's network gets on a GPU; what is refused before a GPU is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("onnx", reason="the train extra (onnx) makes the models these tests run")

from ohlora.cli import app
from ohlora.engines.gpu.device import backend_for, engine_of, open_device_engine
from ohlora.engines.gpu.device_memory import is_out_of_memory
from ohlora.engines.gpu.onnxruntime_device import DeviceSession, provider_options
from ohlora.engines.gpu.tensorrt_sidecar import Sidecar
from ohlora.engines.model_file import read_model_file
from ohlora.engines.onnxruntime_backend import model_spec
from ohlora.errors import EngineError
from tests.support.small_models import SIZE, hair_model

onnxruntime = pytest.importorskip("onnxruntime")


def built(folder: Path, name: str, network: Path, batch: tuple[int, int, int] = (1, 4, 8)) -> Path:
    """An engine's files, as the export writes them; the engine itself is no engine."""
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    engine = folder / f"{name}.engine"
    engine.write_bytes(b"plan")
    Sidecar(
        engine_sha256="e" * 64, model_sha256="a" * 64, package="tensorrt", version="10", compute_capabilities=("9.0",),
        batch=batch, precision="fp16", spec=model_spec(session), ohlora_version="0.1", build_seconds=1.0, layers=3,
        network_sha256=read_model_file(network).sha256,
    ).write(engine)  # fmt: skip
    return engine


def test_engines_are_matched_by_hash(tmp_path: Path) -> None:
    one, other, third = (hair_model(tmp_path / f"{name}.onnx", seed) for seed, name in enumerate("abc"))
    folder = tmp_path / "engines"
    folder.mkdir()
    built(folder, "x", one)
    wanted = built(folder, "y", other)
    engine, sidecar = engine_of(other, folder)
    assert (engine, sidecar.batch) == (wanted, (1, 4, 8))
    with pytest.raises(EngineError, match=r"has no engine of c\.onnx .*ohlora export"):
        engine_of(third, folder)
    folder.rename(folder.with_name(f".{folder.name}.ohlora-old-1"))  # where a kill in the middle of an export leaves it
    assert engine_of(other, folder)[0] == wanted


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    network = hair_model(tmp_path / "hair.onnx")
    folder = tmp_path / "engines"
    folder.mkdir()
    built(folder, "hair", network)
    for words, options in (
        ("unknown backend of a GPU 'openvino': choose auto, tensorrt, torch or onnxruntime", {"backend": "openvino"}),
        ("backend tensorrt needs built engines: ohlora export", {"backend": "tensorrt"}),
        ("is made for batches of 4, 8 were asked for: use --batch 4", {"engines": folder, "bucket": 8}),
        ("holds TensorRT engines, backend torch takes none", {"engines": folder, "backend": "torch"}),
        ("unknown precision 'int8': choose fp32, fp16 or bf16", {"precision": "int8"}),
        ("onnxruntime computes a bundle's networks in fp32, not fp16", {"backend": "onnxruntime", "precision": "fp16"}),
    ):
        with pytest.raises(EngineError, match=words):
            open_device_engine(network, device=0, stream=0, **options)  # type: ignore[arg-type]


def test_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend_for("auto", "fp32", tmp_path) == "tensorrt"
    assert backend_for("onnxruntime", "fp32", None) == "onnxruntime"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert backend_for("auto", "fp32", None) == "onnxruntime"
    with pytest.raises(EngineError, match="torch is not installed"):
        backend_for("torch", "fp16", None)


def test_a_session_runs_between_its_buffers(tmp_path: Path) -> None:
    """By the CPU provider, whose memory is the host's."""
    network = hair_model(tmp_path / "hair.onnx")
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    runner = DeviceSession(session, model_spec(session), 2, "cpu", 0, stream=5)
    image = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)

    class Owner:
        def __init__(self, interface: dict[str, Any]) -> None:
            self.__array_interface__ = {key: interface[key] for key in ("shape", "typestr", "data", "version")}

    def memory(name: str) -> np.ndarray:
        return np.asarray(Owner(runner.buffer(name).__cuda_array_interface__))

    memory("image")[:] = image
    runner.launch(5)
    np.testing.assert_array_equal(memory("hair"), session.run(None, {"image": image})[0])
    with pytest.raises(EngineError, match="opened for another stream"):
        runner.launch(6)


def test_the_stream_reaches_the_providers(tmp_path: Path) -> None:
    model = read_model_file(hair_model(tmp_path / "hair.onnx"))
    for provider in ("cuda", "tensorrt"):
        chosen = dict(provider_options(provider, 1, model, stream=77))
        gpu = [options for name, options in chosen.items() if name != "CPUExecutionProvider"]
        assert all(options["device_id"] == 1 and options["user_compute_stream"] == "77" for options in gpu)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY", True),
        ("CUDA: cudaMalloc failed: out of memory (2)", True),
        ("Failed to allocate memory for requested buffer of size 5", True),
        ("an illegal memory access was encountered", False),
    ],
)
def test_errors_that_mean_no_room(text: str, wanted: bool) -> None:
    assert is_out_of_memory(RuntimeError(text)) is wanted
    wrapped = EngineError("the self-test failed")
    wrapped.__cause__ = RuntimeError(text)
    assert is_out_of_memory(wrapped) is wanted


def test_doctor_names_the_device() -> None:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert '"check": "backend cuda", "ok": true' in done.output
    assert "simulator" in done.output
