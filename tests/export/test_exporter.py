"""`ohlora export`: formats, refusals before work, files and their report, presets as bundles, verification."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import ohlora
from ohlora.base.values import Expression, Ombre
from ohlora.bundle import Bundle
from ohlora.cli import app
from ohlora.engines import arithmetic, backend_report, open_engine
from ohlora.engines.cache import CACHE_VARIABLE
from ohlora.errors import CheckpointError, InvalidInputError, OhloraError
from ohlora.export.exporter import Request, export
from ohlora.export.formats import FORMATS, Batch, parse_batch, refuse
from ohlora.export.networks.compare import Comparison
from ohlora.export.precision.presets import preset_named
from ohlora.export.sources import bundle_source, open_source
from ohlora.faces import face_from_seed
from tests.support.random_faces import real_wheel

SIZE = (64, 64)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "off")


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        if isinstance(done.exception, OhloraError):
            return 2, str(done.exception)
        raise done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize(("text", "wanted"), [("1:8:32", (1, 8, 32)), ("4", (4, 4, 4)), ("1:1:1", (1, 1, 1))])
def test_batches(text: str, wanted: tuple[int, int, int]) -> None:
    batch = parse_batch(text)
    assert (batch.min, batch.opt, batch.max) == wanted
    assert parse_batch(str(batch)) == batch


@pytest.mark.parametrize("text", ["", "0:1:2", "8:4:32", "1:8", "a", "1:8:32:64", "-1", "1:2:9999"])
def test_wrong_batches_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="--batch"):
        parse_batch(text)


@pytest.mark.parametrize(
    ("to", "names", "precision", "preset", "message"),
    [
        ("triton", ["hair"], "bf16", None, "triton takes fp32, fp16, int8, not 'bf16'; --to onnx"),
        ("onnx", ["hair"], "fp8", None, "onnx takes fp32"),
        ("onnx", ["mapping"], "int8", None, "'mapping' has no int8 form"),
        ("onnx", ["parsing"], "int8", None, "use fp32, fp16 or bf16"),
        ("onnx", ["mapping"], "fp16", None, "'mapping' stays float32"),
        ("tensorrt", ["proposal"], None, None, "'proposal' takes pictures of any size"),
        ("tensorrt", ["hair"], None, "fast", "this machine's CPU"),
        ("onnx", ["hair"], "int8", "exact", "exact is fp32"),
        ("bundle", [], None, None, "--preset balanced"),
    ],
)
def test_what_does_not_go_is_refused(
    to: str, names: list[str], precision: str | None, preset: str | None, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        refuse(FORMATS[to], names, precision, preset, (), names)


def test_batch_statistics_do_not_go_to_triton() -> None:
    with pytest.raises(InvalidInputError, match="statistics=alone"):
        refuse(FORMATS["triton"], ["discriminator"], None, None, ["discriminator"])
    refuse(FORMATS["onnx"], ["discriminator"], None, None, ["discriminator"])


def test_sources_say_what_they_have(tmp_path: Path) -> None:
    source = bundle_source("demo", SIZE)
    assert list(source.graphs) == ["mapping", "synthesis", "hair", "portrait", "recolor"]
    with pytest.raises(InvalidInputError, match="has no 'parsing'; it has mapping, synthesis"):
        source.chosen(["parsing"])
    weights = tmp_path / "x.pth"
    weights.write_bytes(b"?")
    with pytest.raises(InvalidInputError, match="--network"):
        open_source(str(weights), None, None, {}, SIZE)
    with pytest.raises(InvalidInputError, match="unknown network 'gan': choose"):
        open_source(str(weights), "gan", None, {}, SIZE)
    with pytest.raises(InvalidInputError, match="belong to a file of weights"):
        open_source("demo", "generator", None, {}, SIZE)


def test_onnx_export_of_a_bundle(tmp_path: Path) -> None:
    out = tmp_path / "engines"
    code, text = run("demo", "--model", "hair", "--model", "recolor", "--size", "80x64", "--out", out)
    assert code == 0, text
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "hair.onnx", "recolor.onnx"]
    report = json.loads((out / "export.json").read_text())
    assert report["bundle_sha256"] == Bundle.open("demo").identity
    assert report["networks"]["hair"]["precision"] == "fp32"
    assert report["networks"]["recolor"]["files"][0]["size"] == (out / "recolor.onnx").stat().st_size
    with open_engine(out / "recolor.onnx", backend="onnxruntime") as engine:
        assert str(engine.spec.inputs[0]) == "image: uint8 [N, 64, 80, 3]"
    found = {entry.key: entry.value for entry in onnx.load(out / "hair.onnx").metadata_props}
    assert found["ohlora.precision"] == "fp32"
    before = (out / "hair.onnx").read_bytes()
    code, text = run("demo", "--model", "recolor", "--out", out)
    assert (code, "--overwrite" in text) == (2, True)
    assert (out / "hair.onnx").read_bytes() == before
    code, _ = run("demo", "--model", "recolor", "--out", out, "--overwrite")
    assert code == 0
    assert not (out / "hair.onnx").exists()
    assert not [path for path in tmp_path.iterdir() if path != out], "nothing is left beside it"


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    code, text = run("demo", "--model", "hair", "--out", tmp_path, "--overwrite")
    assert code == 2
    assert "exists and is not an export: choose another --out, it is left alone" in text
    assert (tmp_path / "thesis.txt").read_text() == "x"


def test_openvino_and_typed_exports_give_the_same_maps(tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    code, text = run("demo", "--to", "openvino", "--model", "hair", "--out", tmp_path / "ir")
    assert code == 0, text
    image = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)
    bundle = Bundle.open("demo")
    with bundle.hair_engine("onnxruntime") as engine:
        exact = engine(image=image)["hair"]
    model = ov.Core().compile_model(tmp_path / "ir" / "hair.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(model([image])["hair"], exact, atol=1e-4)
    code, text = run("demo", "--precision", "fp16", "--model", "hair", "--out", tmp_path / "half")
    assert code == 0, text
    report = json.loads((tmp_path / "half" / "export.json").read_text())["networks"]["hair"]
    assert report["precision"] == "fp16"
    assert report["quality"]["figures"]["iou"] >= 0.999
    with open_engine(tmp_path / "half" / "hair.onnx", backend="onnxruntime") as engine:
        assert 0 < np.abs(engine(image=image)["hair"] - exact).max() < 0.02


def test_weights_are_exported_with_their_parity(tmp_path: Path) -> None:
    code, text = run("mtcnn", "--model", "refinement", "--out", tmp_path / "faces")
    assert code == 0, text
    report = json.loads((tmp_path / "faces" / "export.json").read_text())
    assert report["networks"]["refinement"]["parity"]["box"]["relative_error"] < 1e-4
    code, text = run("mtcnn", "--to", "bundle", "--preset", "fast", "--out", tmp_path / "b")
    assert (code, "build one first" in text) == (2, True)
    code, text = run("mtcnn", "--model", "refinement", "--precision", "int8", "--out", tmp_path / "b")
    assert (code, "no int8 form" in text) == (2, True)


def test_the_photographic_family_is_exported_like_any_other(photo_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] has Triton's definitions")
    out = tmp_path / "models"
    code, text = run(photo_bundle, "--to", "triton", "--batch", "1:2:4", "--out", out)
    assert code == 0, text
    assert "8 configurations validated with Triton's definitions" in text
    code, text = run(photo_bundle, "--precision", "fp16", "--model", "portrait", "--out", tmp_path / "half")
    assert code == 0, text
    report = json.loads((tmp_path / "half" / "export.json").read_text())["networks"]["portrait"]
    assert report["precision"] == "fp16"
    assert report["quality"]["figures"]["psnr_db"] >= 45


def test_weights_of_the_photographic_generator_are_exported(tmp_path: Path) -> None:
    code, text = run(
        real_wheel(), "--network", "mobilestylegan", "--option", "size=quarter", "--model", "synthesis", "--out",
        tmp_path / "engines",
    )  # fmt: skip
    assert code == 0, text
    report = json.loads((tmp_path / "engines" / "export.json").read_text())["networks"]["synthesis"]
    assert report["parity"]["image"]["max_grey_levels"] <= 1
    with open_engine(tmp_path / "engines" / "synthesis.onnx", backend="onnxruntime") as engine:
        assert str(engine.spec.outputs[0]) == "image: uint8 [N, 256, 256, 3]"


def test_a_folder_that_is_not_the_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"MappingNetwork\.bin"):
        open_source(str(tmp_path), "mobilestylegan", None, {}, SIZE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo"], "--out FOLDER"),
        (["demo", "--to", "caffe", "--verify"], "unknown format 'caffe': choose onnx"),
        (["demo", "--preset", "best", "--verify"], "unknown preset 'best': choose exact, balanced or fast"),
        (["demo", "--size", "10", "--verify"], "WIDTHxHEIGHT"),
        (["demo", "--option", "x", "--verify"], "NAME=VALUE"),
        (["nowhere", "--verify"], "nowhere"),
    ],
)
def test_bad_requests_are_one_line(arguments: list[str], message: str) -> None:
    code, text = run(*arguments)
    assert code == 2
    assert message in text


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo bundle at the preset fast in int8, judged on few faces."""
    out = tmp_path_factory.mktemp("fast") / "demo-fast"
    export(
        bundle_source("demo", SIZE), Request("bundle", out, preset="fast", precision="int8", seeds=8), lambda line: None
    )
    return Bundle.open(out)


def test_a_bundle_at_a_preset_renders_nearly_the_same(fast: Bundle) -> None:
    demo = Bundle.open("demo")
    assert fast.name == "demo-fast"
    generator, hair = fast.generator_part(), fast.hair_part()
    assert generator.parity["preset"] == hair.parity["preset"] == "fast"
    assert generator.parity["quality"]["psnr_mean"] >= 35  # type: ignore[index, operator]
    assert hair.parity["quality"]["iou"] >= 0.995  # type: ignore[index, operator]
    assert fast.generator_identity != demo.generator_identity
    faces = [face_from_seed(seed, generator.label_size) for seed in range(3)]
    with ohlora.Renderer(demo) as exact, ohlora.Renderer(fast) as quick:
        wanted = exact.render(faces, Expression(0.5, -0.5, 0.3), Ombre(0.5))
        made = quick.render(faces, Expression(0.5, -0.5, 0.3), Ombre(0.5))
        engine = quick.provenance(generator=True)["engine"]
    assert "int8" in engine or "bf16" in engine
    error = np.mean((made.astype(float) - wanted) ** 2, axis=(1, 2, 3))
    assert (10 * np.log10(255**2 / error) > 30).all()


def test_both_backends_accept_the_quantised_probe(fast: Bundle) -> None:
    for status in backend_report():
        if status.available and status.name in ("openvino", "onnxruntime"):
            mapping, synthesis = fast.generator_engines(status.name, "fp32")
            assert synthesis.selftest["probe"]["image"]["psnr_db"] >= 35
            mapping.close()
            synthesis.close()


def test_verify_is_one_table(fast: Bundle) -> None:
    pytest.importorskip("ohlora.engines.onnx_torch.torch_backend")
    code, text = run(fast.path, "--model", "hair", "--verify", "--json")
    assert code == 0, text
    rows = json.loads(text[text.index("{") :])["verified"]
    assert rows[0]["engine"] == "torch"
    assert rows[0]["speedup"] is None
    assert {row["engine"] for row in rows[1:]} <= {"openvino", "onnxruntime"}
    assert all(row["ms"] > 0 and row["parity"].startswith("IoU") for row in rows[1:])
    assert {row["precision"].split("+")[0] for row in rows} == {"int8"}
    code, text = run("demo", "--model", "mapping", "--verify")
    assert code == 0, text
    assert "median of 5" in text
    assert "mapping" in text


def test_a_missed_gate_writes_nothing(tmp_path: Path) -> None:
    source = bundle_source("demo", SIZE)
    strict = Request("onnx", tmp_path / "out", ["synthesis"], precision="int8", preset="balanced", seeds=8)
    with pytest.MonkeyPatch.context() as patch:
        from ohlora.export.precision import presets

        impossible = Comparison(least={"psnr_mean": 45, "psnr_worst": 200})
        changed = presets.Preset("balanced", impossible, presets.PRESETS["balanced"].masks)
        patch.setitem(presets.PRESETS, "balanced", changed)
        with pytest.raises(OhloraError, match="misses the gate"):
            export(source, strict, lambda line: None)
    assert not list(tmp_path.iterdir())


def test_precision_auto_is_what_was_measured() -> None:
    assert arithmetic("auto", "fp32") == "fp32"
    assert arithmetic("fp32", "bf16") == "fp32"
    assert arithmetic("bf16", "fp32") == "bf16"
    able = any(status.bf16 for status in backend_report())
    assert arithmetic("auto", "bf16") == ("bf16" if able else "fp32")
    assert arithmetic("auto", "bf16", "onnxruntime") == "fp32"
    assert not preset_named("exact").pictures.least
    assert str(Batch(1, 2, 3)) == "1:2:3"
