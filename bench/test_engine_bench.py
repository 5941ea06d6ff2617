"""Engines: rows per second against ONNX Runtime with default options, cost of a call, time to open a model.

Run: pytest bench/test_engine_bench.py --benchmark-group-by=group
Each group's baseline is its first row; every row carries its largest difference from that baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ohlora.engines import backend_report, open_engine
from ohlora.engines.cache import CACHE_VARIABLE

pytest.importorskip("torch", reason="the train extra makes the models")
onnxruntime = pytest.importorskip("onnxruntime")

from ohlora.export.graphs.builder import GraphBuilder  # noqa: E402

BATCH = 8
WAYS = [(s.name, "fp32") for s in backend_report() if s.available]
WAYS += [(s.name, "bf16") for s in backend_report() if s.bf16]
# ONNX Runtime keeps no cache, so it opens in one way only.
OPENINGS = ["baseline", *(f"{name}-compile" for name, precision in WAYS if precision == "fp32")]
OPENINGS += ["openvino-cached"] if ("openvino", "fp32") in WAYS else []


def _chain(path: Path, layers: int, channels: int, size: int, kernel: int) -> Path:
    rng, graph, last = np.random.default_rng(0), GraphBuilder(), "x"
    ones, zeros = (graph.constant(str(value), np.full(channels, value, np.float32)) for value in (1, 0))
    for i in range(layers):
        shape = (channels, channels, kernel, kernel)
        # The gain keeps the signal's size through leaky rectifiers, so that errors can be compared.
        weight = rng.standard_normal(shape) * (1.4 / np.sqrt(np.prod(shape[1:])))
        weights = graph.constant(f"w{i}", weight.astype(np.float32))
        last = graph.add("Conv", [last, weights], f"c{i}", pads=[kernel // 2] * 4)
        last = graph.add("BatchNormalization", [last, ones, zeros, zeros, ones], f"n{i}")
        last = graph.add("LeakyRelu", [last], f"r{i}", alpha=0.2)
    graph.add("Identity", [last], "y")
    side = ("float32", ("N", channels, size, size))
    path.write_bytes(graph.model("chain", {"x": side}, {"y": side}).SerializeToString())
    return path


MODELS: dict[str, Callable[[Path], Path]] = {
    # A generator's character: few wide convolutions, nearly all of the file is weights (94 MB).
    "weights": partial(_chain, layers=10, channels=512, size=16, kernel=3),
    # A student's character: many narrow layers, small file.
    "layers": partial(_chain, layers=120, channels=64, size=28, kernel=1),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make(folder / f"{name}.onnx") for name, make in MODELS.items()}


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path


def _batch(path: Path, rows: int = BATCH) -> tuple[Any, NDArray[np.float32]]:
    """ONNX Runtime with its default options, and a batch for it: the baseline of every group."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shape = (rows, *session.get_inputs()[0].shape[1:])
    return session, np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def _versions(benchmark: Any) -> None:
    benchmark.extra_info.update({status.name: status.version for status in backend_report()})


@pytest.mark.parametrize("way", [("baseline", "fp32"), *WAYS], ids="-".join)
@pytest.mark.parametrize("model", MODELS)
def test_batch_of_8(benchmark: Any, models: dict[str, Path], model: str, way: tuple[str, str], rounds: int) -> None:
    benchmark.group = f"batch of {BATCH}, {model}"
    session, x = _batch(models[model])
    expected = session.run(None, {"x": x})[0]
    if way[0] == "baseline":
        got = benchmark.pedantic(session.run, (None, {"x": x}), rounds=rounds, warmup_rounds=1)[0]
    else:
        with open_engine(models[model], backend=way[0], precision=way[1]) as engine:
            got = benchmark.pedantic(engine, kwargs={"x": x}, rounds=rounds, warmup_rounds=1)["y"]
            benchmark.extra_info["threads"] = engine.threads
    error = float(np.abs(got - expected).max() / np.abs(expected).max())
    benchmark.extra_info["max_error"] = error
    assert error < (1e-4 if way[1] == "fp32" else 0.1)


@pytest.mark.parametrize("way", [("baseline", "fp32"), *WAYS], ids="-".join)
def test_cost_of_a_call(benchmark: Any, tmp_path: Path, way: tuple[str, str]) -> None:
    """A network of next to no work, row by row: what is left is ours."""
    benchmark.group = "64 rows of a network without work"
    path = _chain(tmp_path / "tiny.onnx", layers=1, channels=1, size=1, kernel=1)
    session, x = _batch(path, 64)
    if way[0] == "baseline":
        benchmark(lambda: [session.run(None, {"x": x[i : i + 1]}) for i in range(64)])
    else:
        with open_engine(path, backend=way[0], precision=way[1]) as engine:
            benchmark(lambda: engine(x=x))


@pytest.mark.parametrize("how", OPENINGS)
@pytest.mark.parametrize("model", MODELS)
def test_open_to_first_row(
    benchmark: Any, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, model: str, how: str, rounds: int
) -> None:
    """From a path to the first result; our rows include hashing the file and the self-test."""
    benchmark.group = f"open to first row, {model}"
    backend, _, state = how.partition("-")
    _, x = _batch(models[model], 1)
    if state == "compile":
        monkeypatch.setenv(CACHE_VARIABLE, "off")

    def baseline() -> None:
        _batch(models[model], 1)[0].run(None, {"x": x})

    def ours() -> bool:
        with open_engine(models[model], backend=backend) as engine:
            engine(x=x)
            return engine.cached

    if how == "baseline":
        benchmark.pedantic(baseline, rounds=rounds, warmup_rounds=1)
    else:
        benchmark.extra_info["cached"] = benchmark.pedantic(ours, rounds=rounds, warmup_rounds=1)
