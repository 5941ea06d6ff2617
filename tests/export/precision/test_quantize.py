"""int8 by QDQ: ranges, planning against a gate, quality figures, presets."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohlora.bundle import Bundle
from ohlora.engines.cache import CACHE_VARIABLE
from ohlora.errors import EngineError, InvalidInputError
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.graphs.passes import subpixel
from ohlora.export.precision.int8_plan import plan_int8
from ohlora.export.precision.presets import MASKS, PICTURES, PRESETS, Target, choose, has_bf16, preset_named
from ohlora.export.precision.quality import mask_quality, picture_quality, psnr
from ohlora.export.precision.quantize import Range, calibrate, convolutions, quantize
from tests.support.small_models import hair_model

SIDE = 24


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "off")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    model = onnx.load(hair_model(tmp_path_factory.mktemp("m") / "hair.onnx"))
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
    return model


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


def rows(count: int) -> list[dict[str, np.ndarray]]:
    return [{"image": one[None]} for one in pictures(count)]


@pytest.mark.parametrize("symmetric", [False, True])
def test_quantised_convolutions_are_close_and_named(small: onnx.ModelProto, symmetric: bool) -> None:
    found = convolutions(small, rows(1)[0])
    assert [conv.macs for conv in found] == [SIDE * SIDE * 16 * 27, SIDE * SIDE * 16 * 9]
    ranges = calibrate(small, found, rows(4), symmetric)
    assert set(ranges) == {conv.source for conv in found}
    assert all((r.low == -r.high) == symmetric or r.low == 0 for r in ranges.values())
    made = quantize(small, found, ranges, symmetric)
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("QuantizeLinear") == 2
    assert kinds.count("DequantizeLinear") == 4
    weights = {tensor.name: tensor for tensor in made.graph.initializer}
    assert weights["w1_int8"].data_type == onnx.TensorProto.INT8
    assert "w1" not in weights, "the float weight is gone"
    zeros = {tensor.data_type for name, tensor in weights.items() if name.endswith("_zero")}
    assert zeros == {onnx.TensorProto.INT8 if symmetric else onnx.TensorProto.UINT8}
    inputs = {"image": pictures(3, seed=9)}
    error = np.abs(run_graph(made, inputs)[0] - run_graph(small, inputs)[0])
    assert 0 < error.max() < 0.1
    only = quantize(small, found[1:], ranges, symmetric)
    assert np.abs(run_graph(only, inputs)[0] - run_graph(small, inputs)[0]).max() < error.max() * 1.5


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-2, 2), seed=st.integers(0, 2**20), outlier=st.booleans())
def test_a_range_is_never_worse_than_everything(scale: float, shift: float, seed: int, outlier: bool) -> None:
    from ohlora.export.precision.quantize import _best_range, _error

    values = ((np.random.default_rng(seed).standard_normal(3000) + shift) * scale).astype(np.float32)
    if outlier:
        values[0] = 30 * scale
    found = _best_range(values, symmetric=False)
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    assert low <= found.low <= 0 <= found.high <= high
    assert _error(values, found.low, found.high) <= _error(values, low, high) * (1 + 1e-9)


def test_a_range_clips_what_hardly_occurs() -> None:
    from ohlora.export.precision.quantize import _best_range

    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    values[0] = 12.0
    found = _best_range(values, symmetric=True)
    assert 3.5 < found.high < 8, "one outlier does not take the steps away from all others"


def test_constant_activations_have_a_range() -> None:
    from ohlora.export.precision.quantize import _best_range

    assert _best_range(np.zeros(10, np.float32), symmetric=False) == Range(0.0, 1.0)


def test_a_plan_takes_what_the_gate_allows(small: onnx.ModelProto) -> None:
    inputs = {"image": pictures(4, seed=5)}
    exact = run_graph(small, inputs)[0]

    def gate(limit: float):
        return lambda model: float(np.abs(run_graph(model, inputs)[0] - exact).max()) <= limit

    everything = plan_int8(small, rows(3), gate(1.0))
    assert everything is not None
    assert (len(everything.chosen), everything.candidates) == (2, 2)
    assert everything.share == pytest.approx(1.0)
    assert plan_int8(small, rows(3), gate(0.0)) is None
    worst = float(np.abs(run_graph(everything.model, inputs)[0] - exact).max())
    part = plan_int8(small, rows(3), gate(worst * 0.99))
    assert part is None or len(part.chosen) == 1
    with pytest.raises(EngineError, match="calibration"):
        calibrate(small, convolutions(small, rows(1)[0]), [], False)


def test_picture_quality_counts_the_worst_too() -> None:
    exact = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    made = exact.copy()
    made[1, :4] = np.where(made[1, :4] > 127, made[1, :4] - 40, made[1, :4] + 40)
    found = picture_quality(exact, made)
    error = 40.0**2 * 4 / 32
    assert found["psnr_worst"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-3)
    assert found["psnr_mean"] == pytest.approx((200 + found["psnr_worst"]) / 3)
    assert (found["max_levels"], found["pictures"]) == (40, 3)
    assert found["ssim_worst"] < found["ssim_mean"] < 1
    assert found["feature_worst"] > found["feature_mean"] > 0
    assert psnr(exact, exact).tolist() == [100.0] * 3


def test_mask_quality_leaves_specks_out_of_the_worst() -> None:
    exact = np.zeros((2, 20, 20), np.float32)
    exact[0, :10] = 1.0
    exact[1, 0, 0] = 1.0  # too little to judge by itself
    made = exact.copy()
    made[0, 9] = 0.0
    made[1, 0, 0] = 0.4
    found = mask_quality(exact, made)
    assert found["iou"] == pytest.approx(180 / 201)
    assert found["iou_worst"] == pytest.approx(0.9)
    assert found["max_error"] == 1.0
    assert mask_quality(exact * 0, exact * 0)["iou"] == 1.0


def test_presets_are_gates(small: onnx.ModelProto) -> None:
    assert list(PRESETS) == ["exact", "balanced", "fast"]
    with pytest.raises(InvalidInputError, match="exact, balanced or fast"):
        preset_named("quick")
    inputs, calibration = {"image": pictures(12, 1)}, {"image": pictures(3, 2)}
    chosen = choose(Target(MASKS, small, inputs, calibration, PRESETS["exact"]))
    assert (chosen.form, chosen.precision, chosen.plan) == ("fp32", "fp32", None)
    lines: list[str] = []
    loose = choose(Target(MASKS, small, inputs, calibration, PRESETS["fast"]), report=lines.append)
    assert loose.form in {"int8", "int8+bf16", "bf16", "fp32"}
    assert PRESETS["fast"].masks.missed(loose.quality) is None
    assert "hair a row: " in lines[0]  # the order in which forms are tried
    assert f"hair {loose.form}: " in lines[-1]
    with pytest.raises(EngineError, match=r"misses the gate \(max_error at most 0.002"):
        choose(Target(MASKS, small, inputs, calibration, PRESETS["exact"]), precision="int8")
    if not has_bf16():
        with pytest.raises(EngineError, match="no bf16"):
            choose(Target(MASKS, small, inputs, calibration, PRESETS["fast"]), precision="bf16")


def test_the_demo_generator_is_int8_at_fast() -> None:
    bundle = Bundle.open("demo")
    part = bundle.generator_part()
    model = onnx.load(bundle.file(part.synthesis))
    z = np.random.default_rng(0).standard_normal((7, part.z_size)).astype(np.float32)
    w = run_graph(onnx.load(bundle.file(part.mapping)), {"z": z})[0]
    wp = np.repeat(w[:, None], part.num_layers, axis=1)
    target = Target(PICTURES, model, {"wp": wp[:5]}, {"wp": wp[5:]}, PRESETS["fast"])
    chosen = choose(target, precision="int8")
    assert chosen.form == "int8"
    assert chosen.plan is not None
    assert chosen.plan.share > 0.9
    assert chosen.quality["psnr_mean"] >= 38
    stored = {tensor.data_type for tensor in chosen.model.graph.initializer}
    assert onnx.TensorProto.INT8 in stored
    assert chosen.model.ByteSize() < subpixel(model).ByteSize() / 2
    record = chosen.to_json(PRESETS["fast"])
    assert record["preset"] == "fast"
    assert record["int8"]["int8_convolutions"] == len(chosen.plan.chosen)
