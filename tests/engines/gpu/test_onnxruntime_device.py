"""ONNX Runtime's device engines, by the CPU provider, and graphs that engines must not run row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from ohlora.engines import open_engine
from ohlora.engines.cache import CACHE_VARIABLE
from ohlora.engines.gpu.onnxruntime_device import open_onnxruntime_device, provider_options
from ohlora.engines.model_file import read_model_file
from ohlora.errors import EngineError
from tests.support.small_models import SIZE, hair_model


def test_buckets_give_what_rows_give(tmp_path: Path) -> None:
    path = hair_model(tmp_path / "hair.onnx")
    image = np.random.default_rng(0).integers(0, 256, (7, SIZE, SIZE, 3)).astype(np.uint8)
    with open_engine(path, backend="onnxruntime") as engine:
        wanted = engine(image=image)["hair"]
    probe = {"inputs": {"image": image}, "outputs": {"hair": wanted}}
    with open_onnxruntime_device(path, provider="cpu", bucket=3, probe=probe) as engine:
        assert engine.selftest["probe"]["hair"]["max_abs"] < 1e-5
        made = engine(image=image)["hair"]
        np.testing.assert_allclose(made, wanted, atol=1e-6)
        assert np.array_equal(engine(image=image[4:5])["hair"][0], made[4]), "a row ignores its neighbours"
        assert engine(image=image[:0])["hair"].shape == (0, SIZE, SIZE)
        future = engine.submit(image=image[:2])
        assert np.array_equal(future.result()["hair"], made[:2])


def test_providers_that_are_not_there(tmp_path: Path) -> None:
    import onnxruntime

    path = hair_model(tmp_path / "hair.onnx")
    with pytest.raises(EngineError, match="unknown provider 'rocm'"):
        open_onnxruntime_device(path, provider="rocm")
    with pytest.raises(EngineError, match="at least one row"):
        open_onnxruntime_device(path, provider="cpu", bucket=0)
    for provider in ("cuda", "tensorrt"):
        if not any(name.lower().startswith(provider) for name in onnxruntime.get_available_providers()):
            with pytest.raises(EngineError, match="pip install onnxruntime-gpu"):
                open_onnxruntime_device(path, provider=provider)


def test_tensorrt_keeps_its_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    model = read_model_file(hair_model(tmp_path / "hair.onnx"))
    first, second, last = provider_options("tensorrt", 1, model)
    assert (first[0], second[0], last[0]) == (
        "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider",
    )  # fmt: skip
    assert first[1]["device_id"] == second[1]["device_id"] == 1
    assert model.sha256[:16] in first[1]["trt_engine_cache_path"]
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    assert "trt_engine_cache_path" not in provider_options("tensorrt", 0, model)[0][1]


def test_rows_that_depend_on_their_batch_are_refused(tmp_path: Path) -> None:
    path = hair_model(tmp_path / "hair.onnx")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"ohlora.rows": "dependent"})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match="statistics=alone"):
        open_engine(path)
    onnx.helper.set_model_props(model, {"ohlora.rows": "alone"})
    path.write_bytes(model.SerializeToString())
    open_engine(path, backend="onnxruntime").close()
