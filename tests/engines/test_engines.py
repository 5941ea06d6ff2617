"""Engines: what a row gives never depends on its surroundings, wrong input is named, damage is found."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ohlora.engines import BACKENDS, backend_report, open_engine, registry, usable_cores
from ohlora.engines.cache import CACHE_VARIABLE
from ohlora.errors import EngineError
from tests.support.small_models import SIZE, TensorProto, hair_model, helper, mapping_model, onnx, save

INSTALLED = [status for status in backend_report() if status.available]
NAMES = [status.name for status in INSTALLED]
# (backend, precision) pairs that this machine can run.
WAYS = [(s.name, "fp32") for s in INSTALLED] + [(s.name, "bf16") for s in INSTALLED if s.bf16]
needs_openvino = pytest.mark.skipif("openvino" not in NAMES, reason="openvino is not installed")
pytestmark = pytest.mark.usefixtures("cache_dir")


@pytest.fixture(scope="module")
def opened(hair):
    """One engine per way to run, shared by tests that only call it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, "off")
        made = {way: open_engine(hair, backend=way[0], precision=way[1], threads=2) for way in WAYS}
    yield made
    for engine in made.values():
        engine.close()


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(0, 8), min_size=1, max_size=11))
def test_row_ignores_batch_position_and_neighbours(opened, images, way, order):
    engine = opened[way]
    alone = [engine(image=images[i : i + 1])["hair"][0] for i in range(len(images))]
    together = engine(image=images[order])["hair"]
    for row, index in enumerate(order):
        assert together[row].tobytes() == alone[index].tobytes()


@pytest.mark.parametrize("way", WAYS)
def test_row_ignores_threads(hair, images, opened, way):
    expected = opened[way](image=images)["hair"]
    for threads in (1, 3, usable_cores()):
        with open_engine(hair, backend=way[0], precision=way[1], threads=threads) as engine:
            assert engine.threads == threads
            assert engine(image=images)["hair"].tobytes() == expected.tobytes()


@pytest.mark.parametrize("way", WAYS)
def test_every_runner_gives_the_same(opened, images, way):
    engine = opened[way]
    runners = [engine._idle.get() for _ in range(engine.threads)]
    try:
        results = []
        for runner in runners:
            out = np.empty((1, SIZE, SIZE), np.float32)
            runner({"image": images[:1]}, {"hair": out})
            results.append(out.tobytes())
    finally:
        for runner in runners:
            engine._idle.put(runner)
    assert len(runners) == 2
    assert len(set(results)) == 1


@pytest.mark.parametrize("way", WAYS)
def test_calls_from_many_threads_do_not_mix(opened, images, way):
    engine = opened[way]
    expected = engine(image=images)["hair"]
    start = threading.Barrier(4)

    def call(shift: int) -> bool:
        start.wait()
        for _ in range(5):
            got = engine(image=np.roll(images, shift, axis=0))["hair"]
            if got.tobytes() != np.roll(expected, shift, axis=0).tobytes():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(4)))


@pytest.mark.parametrize("way", WAYS)
def test_views_and_no_rows(opened, images, way):
    engine = opened[way]
    expected = engine(image=images)["hair"]
    wide = np.zeros((9, SIZE, SIZE + 1, 4), np.uint8)
    wide[:, :, 1:, 1:] = images  # neither contiguous nor aligned
    assert engine(image=wide[:, :, 1:, 1:])["hair"].tobytes() == expected.tobytes()
    assert engine(image=images[::-1])["hair"].tobytes() == expected[::-1].tobytes()
    empty = engine(image=images[:0])["hair"]
    assert empty.shape == (0, SIZE, SIZE)
    assert empty.dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_backends_agree_with_arithmetic(tmp_path, name):
    path = mapping_model(tmp_path / "mapping.onnx")
    weights = onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    z, label = np.random.default_rng(0).standard_normal((5, 6)), np.ones((5, 3))
    with open_engine(path, backend=name, threads=2) as engine:
        w = engine(z=z.astype(np.float32), label=label.astype(np.float32))["w"]
    np.testing.assert_allclose(w, np.concatenate([z, label], 1) @ weights, atol=1e-5)


@needs_openvino
def test_f32_really_is_f32(opened, images):
    # Left to itself OpenVINO takes bf16 on CPUs that have it: 1e-3 of error instead of 1e-6.
    reference = opened["onnxruntime", "fp32"](image=images)["hair"]
    assert np.abs(opened["openvino", "fp32"](image=images)["hair"] - reference).max() < 2e-5


@pytest.mark.parametrize("name", NAMES)
def test_output_names_survive_fused_graphs(tmp_path, name):
    node = helper.make_node
    nodes = [
        node("Relu", ["x"], ["aaa"]),
        node("Identity", ["aaa"], ["second"]),
        node("Identity", ["x"], ["same"]),
        node("Neg", ["aaa"], ["first"]),
    ]
    shape = (TensorProto.FLOAT, ["N", 2])
    path = save(tmp_path / "m.onnx", nodes, {"x": shape}, dict.fromkeys(("second", "same", "first"), shape), {})
    x = np.array([[1, -2]], np.float32)
    for _ in range(2):  # compiled, then from the cache
        with open_engine(path, backend=name) as engine:
            assert [t.name for t in engine.spec.outputs] == ["second", "same", "first"]
            got = engine(x=x)
        assert {k: v.tolist() for k, v in got.items()} == {
            "second": [[1, 0]],
            "same": [[1, -2]],
            "first": [[-1, 0]],
        }


def test_submit_overlaps_and_close_ends(hair, images):
    engine = open_engine(hair, threads=2)
    expected = engine(image=images)["hair"]
    futures = [engine.submit(image=images) for _ in range(4)]
    engine.close()  # waits for what was started
    assert all(future.result(0)["hair"].tobytes() == expected.tobytes() for future in futures)
    engine.close()
    with pytest.raises(EngineError, match=r"hair\.onnx is closed"):
        engine(image=images)


def test_backend_failure_reaches_the_caller(hair, images):
    with open_engine(hair, threads=2) as engine:
        broken = engine._idle.get()

        def fail(inputs, outputs):
            raise RuntimeError("out of memory")

        engine._idle.get()
        engine._idle.put(fail)
        engine._idle.put(fail)
        with pytest.raises(EngineError, match="out of memory"):
            engine(image=images)
        while not engine._idle.empty():
            engine._idle.get()
        engine._idle.put(broken)
        assert len(engine(image=images[:1])["hair"]) == 1


# ---------------------------------------------------------------- input checks


def _two_inputs(**changes):
    return {"z": np.zeros((2, 6), np.float32), "label": np.zeros((2, 3), np.float32), **changes}


BAD_INPUTS = {
    "missing": ({"z": np.zeros((2, 6), np.float32)}, "missing input 'label'"),
    "unknown": (_two_inputs(w=np.zeros(2)), "unknown input 'w'"),
    "dtype": (_two_inputs(z=np.zeros((2, 6))), r"'z' expects z: float32 \[N, 6\], got float64 \[2, 6\]"),
    "byte order": (_two_inputs(z=np.zeros((2, 6), ">f4")), "'z' expects"),
    "shape": (_two_inputs(z=np.zeros((2, 7), np.float32)), r"expects .*\[N, 6\], got float32 \[2, 7\]"),
    "no batch": (_two_inputs(z=np.zeros(6, np.float32)), r"got float32 \[6\]"),
    "scalar": (_two_inputs(z=np.float32(0)), r"got float32 \[\]"),
    "rows": (_two_inputs(label=np.zeros((3, 3), np.float32)), "'label' has 3 rows, 'z' has 2"),
    "nan": (_two_inputs(z=np.array([[0] * 6, [np.nan] * 6], np.float32)), "'z' holds NaN .* row 1"),
    "infinity": (_two_inputs(z=np.full((2, 6), np.inf, np.float32)), "'z' holds NaN or infinity"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_wrong_input_is_named(tmp_path, case):
    inputs, message = BAD_INPUTS[case]
    with (
        open_engine(mapping_model(tmp_path / "mapping.onnx"), threads=1) as engine,
        pytest.raises(EngineError, match=message),
    ):
        engine(**inputs)


# ---------------------------------------------------------------- opening


@needs_openvino
def test_openvino_sends_no_telemetry(hair):
    """Its own import starts a process that reports to its maker's analytics."""
    code = f"""
import sys
from ohlora.engines import open_engine
open_engine({str(hair)!r}, backend="openvino").close()
assert "openvino" in sys.modules
sent = [name for name in sys.modules if name.startswith("openvino_telemetry")]
assert not sent, sent
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them")
def test_onnxruntime_sends_no_telemetry(hair):
    """Its own import starts a thread that reports to its maker."""
    code = f"""
import os
from ohlora.engines import open_engine
before = len(os.listdir("/proc/self/task"))
open_engine({str(hair)!r}, backend="onnxruntime", threads=1).close()
started = len(os.listdir("/proc/self/task")) - before
assert started == 0, started
"""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


def test_auto_says_which_and_why(hair, caplog):
    with caplog.at_level(logging.WARNING, "ohlora"), open_engine(hair) as engine:
        assert engine.reason.startswith(f"{engine.backend}: preferred")
        assert len(engine.model_sha256) == 64
    assert not caplog.records


def test_auto_falls_back_with_one_line(hair, images, monkeypatch, caplog):
    broken = registry.BackendEntry("torn", "no_such_package")
    monkeypatch.setattr(registry, "BACKENDS", (broken, *BACKENDS))
    with caplog.at_level(logging.WARNING, "ohlora"), open_engine(hair) as engine:
        assert engine.backend in NAMES
        assert "torn is not installed: pip install no_such_package" in engine.reason
    (record,) = caplog.records
    assert "falls back to" in record.getMessage()
    assert "\n" not in record.getMessage()


@needs_openvino
def test_auto_falls_back_when_compiling_fails(hair, images, monkeypatch, caplog):
    from ohlora.engines import openvino_backend as openvino

    def explode(*args, **kwargs):
        raise RuntimeError("unsupported\noperation")

    monkeypatch.setattr(openvino, "_compile", explode)
    with caplog.at_level(logging.WARNING, "ohlora"), open_engine(hair) as engine:
        assert engine.backend == "onnxruntime"
    assert "unsupported operation" in caplog.text
    with pytest.raises(EngineError, match="unsupported operation"):
        open_engine(hair, backend="openvino")


def test_no_backend_left_lists_all(hair, monkeypatch):
    monkeypatch.setattr(registry, "BACKENDS", tuple(registry.BackendEntry(n, f"no_{n}") for n in "ab"))
    with pytest.raises(EngineError, match=r"a: backend a is not installed: pip install no_a; b: backend b"):
        open_engine(hair)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrrt"}, "unknown backend 'tensorrrt': choose auto, openvino, onnxruntime or torch"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"backend": "onnxruntime", "precision": "bf16"}, "use openvino, or precision fp32"),
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"threads": True}, "got True"),
    ],
)
def test_bad_options(hair, options, message):
    with pytest.raises(EngineError, match=message):
        open_engine(hair, **options)


@needs_openvino
def test_bf16_needs_the_cpu(hair, monkeypatch):
    from ohlora.engines import openvino_backend as openvino

    monkeypatch.setattr(openvino, "_capabilities", lambda: ["FP32", "INT8"])
    for backend in ("openvino", "auto"):
        with pytest.raises(EngineError, match="no bf16 instructions"):
            open_engine(hair, backend=backend, precision="bf16")


def test_unreadable_models(tmp_path, hair):
    with pytest.raises(EngineError, match=r"there is no model .*none\.onnx"):
        open_engine(tmp_path / "none.onnx")
    for name, data in (("empty", b""), ("text", b"not a model"), ("cut", hair.read_bytes()[:-200])):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(EngineError, match=f"{name}.onnx is not an ONNX model or is damaged"):
            open_engine(path)


def test_weights_in_another_file_are_refused(tmp_path, hair, monkeypatch):
    path = tmp_path / "split.onnx"
    onnx.save(onnx.load(hair), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path)  # where a backend would find the file by itself
    with pytest.raises(EngineError, match="in a separate file: export it as one file"):
        open_engine(path)


@pytest.mark.parametrize("name", NAMES)
def test_batch_dimension(tmp_path, images, name, opened):
    expected = opened[name, "fp32"](image=images)["hair"]
    with open_engine(hair_model(tmp_path / "one.onnx", batch=1), backend=name) as engine:
        assert engine(image=images)["hair"].tobytes() == expected.tobytes()
    with pytest.raises(EngineError, match="dynamic first dimension"):
        open_engine(hair_model(tmp_path / "four.onnx", batch=4), backend=name)
    any_size = save(
        tmp_path / "free.onnx",
        [helper.make_node("Relu", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, ["N", "K"])},
        {"y": (TensorProto.FLOAT, ["N", "K"])},
        {},
    )
    with pytest.raises(EngineError, match="'x' has dynamic dimensions besides the batch"):
        open_engine(any_size, backend=name)


@pytest.mark.parametrize("name", NAMES)
def test_output_without_batch_is_refused(tmp_path, name):
    path = save(
        tmp_path / "flat.onnx",
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        {"x": (TensorProto.FLOAT, ["N", 4])},
        {"y": (TensorProto.FLOAT, [4])},
        {"axes": np.array([0], np.int64)},
    )
    with pytest.raises(EngineError, match="'y' has shape"):
        open_engine(path, backend=name)


def test_report_lists_every_backend(monkeypatch):
    assert [row.name for row in backend_report()] == [backend.name for backend in BACKENDS]
    for row in INSTALLED:
        assert row.version
        assert row.detail
    monkeypatch.setattr(registry, "BACKENDS", (registry.BackendEntry("torn", "no_such_package"),))
    (row,) = backend_report()
    assert (row.available, row.bf16) == (False, False)
    assert "pip install no_such_package" in row.detail
