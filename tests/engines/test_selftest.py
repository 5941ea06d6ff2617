"""What guards an engine at load: the self-test against its probe, and the cache of compiled networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ohlora.engines import backend_report, open_engine
from ohlora.engines.cache import CACHE_VARIABLE
from ohlora.engines.selftest import GATES, Probe, load_probe, save_probe
from ohlora.errors import EngineError
from tests.support.small_models import TensorProto, hair_model, helper, save

INSTALLED = [status for status in backend_report() if status.available]
WAYS = [(s.name, "fp32") for s in INSTALLED] + [(s.name, "bf16") for s in INSTALLED if s.bf16]
needs_openvino = pytest.mark.skipif(("openvino", "fp32") not in WAYS, reason="openvino is not installed")
pytestmark = pytest.mark.usefixtures("cache_dir")


# ---------------------------------------------------------------- self-test


@pytest.fixture(scope="module")
def probe(hair, images) -> Probe:
    with open_engine(hair, backend="onnxruntime") as engine:
        return Probe({"image": images[:2]}, engine(image=images[:2]))


@pytest.mark.parametrize("way", WAYS)
def test_probe_passes_and_is_measured(hair, probe, tmp_path, way):
    save_probe(tmp_path / "probe.safetensors", hair=probe)
    with open_engine(hair, backend=way[0], precision=way[1], probe=tmp_path / "probe.safetensors") as engine:
        figures = engine.selftest["probe"]["hair"]
    assert 0 <= figures["mean_abs"] <= figures["max_abs"] < (1e-3 if way[1] == "fp32" else 0.1)


@pytest.mark.parametrize("way", WAYS)
def test_probe_of_another_model_fails(tmp_path, probe, way):
    other = hair_model(tmp_path / "other.onnx", seed=5)
    with pytest.raises(EngineError, match=r"self-test of other\.onnx .* 'hair' is not the probe's"):
        open_engine(other, backend=way[0], precision=way[1], probe=probe)


def test_probe_must_fit_the_model(hair, probe, images):
    wrong = {"hair": probe.outputs["hair"][:1]}
    with pytest.raises(EngineError, match=r"probe output 'hair' is float32 \[1, 24, 24\]"):
        open_engine(hair, backend="onnxruntime", probe=Probe(probe.inputs, wrong))
    with pytest.raises(EngineError, match=r"has outputs \['mask'\], the model \['hair'\]"):
        open_engine(hair, backend="onnxruntime", probe={"inputs": probe.inputs, "outputs": {"mask": images}})
    with pytest.raises(EngineError, match="both 'inputs' and 'outputs'"):
        open_engine(hair, probe={"inputs": probe.inputs})


def test_probe_files(tmp_path, probe, hair):
    path = tmp_path / "probe.safetensors"
    save_probe(path, one=probe, two=probe)
    first = path.read_bytes()
    save_probe(path, one=probe, two=probe)
    assert path.read_bytes() == first
    np.testing.assert_array_equal(load_probe(path, "two").outputs["hair"], probe.outputs["hair"])
    with pytest.raises(EngineError, match="holds one, two, not None"):
        open_engine(hair, probe=path)
    path.write_bytes(first[:100])
    with pytest.raises(EngineError, match="cannot read the probe"):
        open_engine(hair, probe=path)


def test_nan_from_a_model_is_found(tmp_path):
    path = save(
        tmp_path / "nan.onnx",
        [helper.make_node("Div", ["zero", "x"], ["nan"]), helper.make_node("Mul", ["nan", "zero"], ["y"])],
        {"x": (TensorProto.FLOAT, ["N", 2])},
        {"y": (TensorProto.FLOAT, ["N", 2])},
        {"zero": np.float32(np.inf)},
    )
    with pytest.raises(EngineError, match="'y' holds NaN or infinity"):
        open_engine(path, backend="onnxruntime")


def test_unequal_rows_are_found(hair, monkeypatch):
    from ohlora.engines import onnxruntime_backend as onnxruntime

    honest, calls = onnxruntime._Runner.__call__, []

    def drifting(self, inputs, outputs):
        honest(self, inputs, outputs)
        calls.append(1)
        outputs["hair"] += 1e-6 * len(calls)

    monkeypatch.setattr(onnxruntime._Runner, "__call__", drifting)
    with pytest.raises(EngineError, match="equal rows gives different 'hair'"):
        open_engine(hair, backend="onnxruntime", threads=1)


@pytest.mark.parametrize(
    ("precision", "kind", "good", "bad"),
    [
        ("fp32", "integer", {"max_abs": 1, "share": 1e-3}, {"max_abs": 2, "share": 1e-4}),
        ("fp32", "integer", {"max_abs": 0, "share": 0}, {"max_abs": 1, "share": 2e-3}),
        ("fp32", "float", {"max_abs": 9e-4}, {"max_abs": 2e-3}),
        ("fp32", "float", {"max_abs": 0}, {"max_abs": float("nan")}),
        ("bf16", "integer", {"psnr_db": 30}, {"psnr_db": 29.9}),
        ("bf16", "float", {"mean_abs": 0.02}, {"mean_abs": 0.021}),
    ],
)
def test_gates(precision, kind, good, bad):
    assert GATES[precision, kind].passed(good)
    assert not GATES[precision, kind].passed(bad)


# ---------------------------------------------------------------- cache


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("engines/*/engine.bin"))


@needs_openvino
def test_cache_is_used_and_equal(hair, images, cache_dir):
    results, cached = [], []
    for _ in range(2):
        with open_engine(hair, backend="openvino", threads=2) as engine:
            results.append(engine(image=images)["hair"].tobytes())
            cached.append(engine.cached)
    assert cached == [False, True]
    assert results[0] == results[1]
    open_engine(hair, backend="openvino", threads=1).close()
    assert len(_entries(cache_dir)) == 2  # one stream is another engine


@needs_openvino
@pytest.mark.parametrize("damage", ["flip weights", "flip header", "truncate", "empty", "valid checksum, garbage"])
def test_damaged_cache_is_rebuilt(hair, images, cache_dir, damage):
    with open_engine(hair, backend="openvino", threads=2) as engine:
        expected = engine(image=images)["hair"].tobytes()
    (entry,) = _entries(cache_dir)
    data = bytearray(entry.read_bytes())
    if damage == "flip weights":
        data[len(data) // 2] ^= 0x40
    elif damage == "flip header":
        data[40] ^= 1
    elif damage == "truncate":
        del data[len(data) // 2 :]
    elif damage == "empty":
        data.clear()
    else:
        from ohlora.engines.cache import CacheEntry

        assert CacheEntry(entry.parent).store({"inputs": [], "outputs": []}, b"garbage" * 50)
        data = bytearray(entry.read_bytes())
    entry.write_bytes(data)
    for cached in (False, True):
        with open_engine(hair, backend="openvino", threads=2) as engine:
            assert engine.cached is cached
            assert engine(image=images)["hair"].tobytes() == expected


@needs_openvino
def test_stale_cache_is_found_by_the_probe(hair, probe, tmp_path, cache_dir):
    # A well-formed entry of another network under this network's key.
    other = hair_model(tmp_path / "other.onnx", seed=5)
    open_engine(hair, backend="openvino", threads=1).close()
    (mine,) = _entries(cache_dir)
    open_engine(other, backend="openvino", threads=1).close()
    (foreign,) = set(_entries(cache_dir)) - {mine}
    mine.write_bytes(foreign.read_bytes())
    for cached in (False, True):
        with open_engine(hair, backend="openvino", threads=1, probe=probe) as engine:
            assert engine.cached is cached


@needs_openvino
@pytest.mark.parametrize("off", ["", "off"])
def test_cache_can_be_switched_off(hair, monkeypatch, off, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, off)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with open_engine(hair, backend="openvino", threads=1) as engine:
            assert not engine.cached
    assert list(tmp_path.iterdir()) == []


@needs_openvino
def test_cache_that_cannot_be_written_is_no_cache(hair, images, tmp_path, monkeypatch):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv(CACHE_VARIABLE, str(blocked))
    with open_engine(hair, backend="openvino", threads=1) as engine:
        assert len(engine(image=images)["hair"]) == 9
