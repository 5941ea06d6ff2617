"""The Triton repository: configurations that Triton's own definitions read, and an ensemble that is the pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import ohlora
from ohlora.bundle import Bundle
from ohlora.cli import app
from ohlora.engines.spec import TensorSpec
from ohlora.errors import EngineError, InvalidInputError
from ohlora.export.formats import Batch
from ohlora.export.graphs.from_torch import run_graph
from ohlora.export.triton.config import model_config, parse_config
from ohlora.export.triton.repository import TritonModel, tensors, validate_repository, write_repository
from ohlora.faces import face_from_seed
from tests.support.small_models import LABEL, Z, mapping_model

triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] has Triton's definitions")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("triton") / "models"
    done = CliRunner().invoke(app, ["export", "demo", "--to", "triton", "--batch", "1:4:16", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "validated with Triton's definitions" in done.output
    return out


def test_every_configuration_is_tritons(repository: Path) -> None:
    assert validate_repository(repository) == []
    config = parse_config(repository / "ohlora_portrait" / "config.pbtxt")
    assert config.max_batch_size == 16
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 16]
    assert config.version_policy.latest.num_versions == 1
    assert {tensor.name for tensor in config.input} == {"z", "truncation", "expression", "ombre"}
    assert [(w.name, w.batch_size) for w in config.model_warmup] == [("batch1", 1), ("batch4", 4)]
    warm = np.frombuffer((repository / "ohlora_portrait" / "warmup" / "batch4-z").read_bytes(), np.float32)
    assert warm.shape == (512,)
    assert warm.std() > 0.5, "a real latent, not zeros"
    hashes = json.loads((repository / "ohlora_repository.json").read_text())["models"]
    assert set(hashes) >= {"ohlora_portrait", "ohlora_hair", "ohlora_portrait_chain"}
    for name in ("README.md", "client.py"):
        assert "ohlora_portrait" in (repository / name).read_text()
    compile((repository / "client.py").read_text(), "client.py", "exec")


def run_chain(repository: Path, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The ensemble as its configuration says it, step by step."""
    values = dict(given)
    for step in parse_config(repository / "ohlora_portrait_chain" / "config.pbtxt").ensemble_scheduling.step:
        model = onnx.load(repository / step.model_name / "1" / "model.onnx")
        made = run_graph(model, {inner: values[outer] for inner, outer in step.input_map.items()})
        by_name = dict(zip((value.name for value in model.graph.output), made, strict=True))
        values |= {outer: by_name[inner] for inner, outer in step.output_map.items()}
    return values


def test_the_ensemble_is_the_pipeline(repository: Path) -> None:
    faces = [face_from_seed(seed) for seed in range(3)]
    with ohlora.Renderer("demo", backend="onnxruntime") as renderer:
        wanted = renderer.render(faces, psi=0.7, truncation_layers=6)
        hair = renderer.hair(wanted)
    made = run_chain(
        repository,
        {"z": np.stack([face.z for face in faces]), "truncation": np.array([[0.7, 6]] * 3, np.float32)},
    )
    apart = np.abs(made["image"].astype(int) - wanted)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 1e-3
    assert np.abs(made["hair"] - hair).mean() < 1e-4


def small(tmp_path: Path, **changes: Any) -> TritonModel:
    data = mapping_model(tmp_path / "m.onnx").read_bytes()
    rows = {"z": np.ones((1, Z), np.float32), "label": np.ones((1, LABEL), np.float32)}
    return TritonModel(**({"name": "m", "data": data, "rows": rows, "batch": Batch(1, 2, 4)} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "no name for a Triton model"),
        ({"name": ".."}, "no name for a Triton model"),
        ({"rows": {}}, "no warm-up rows for its input 'z'"),
    ],
)
def test_wrong_models_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInputError, match=message):
        write_repository([small(tmp_path, **changes)], [], tmp_path / "out")
    with pytest.raises(InvalidInputError, match="two Triton models"):
        write_repository([small(tmp_path), small(tmp_path)], [], tmp_path / "out")


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert validate_repository(out) == [f"{out} holds no model"]
    write_repository([small(tmp_path)], [], out)
    assert validate_repository(out) == []
    config = out / "m" / "config.pbtxt"
    text = config.read_text()
    config.write_text(text.replace("TYPE_FP32", "TYPE_FP16"))
    assert any("inputs are" in line for line in validate_repository(out))
    config.write_text(text.replace('name: "m"', 'name: "n"', 1))
    assert "called 'n'" in validate_repository(out)[0]
    config.write_text(text)
    (out / "m" / "warmup" / "batch1-z").write_bytes(b"1234")
    assert "batch1-z is missing or not one row" in validate_repository(out)[0]
    (out / "m" / "1" / "model.onnx").unlink()
    assert "is missing" in validate_repository(out)[0]
    config.write_text("name: 5 }")
    with pytest.raises(EngineError, match="no Triton model configuration"):
        validate_repository(out)


def test_a_row_that_is_one_number_has_a_shape_for_triton(tmp_path: Path) -> None:
    tensors = [TensorSpec("group", "int64", (None,))], [TensorSpec("y", "float32", (None, 2))]
    (tmp_path / "config.pbtxt").write_text(model_config("m", *tensors, Batch(1, 4, 8), {}))
    parsed = parse_config(tmp_path / "config.pbtxt")
    assert list(parsed.input[0].dims) == [1]
    assert parsed.input[0].HasField("reshape")
    assert list(parsed.input[0].reshape.shape) == []


def test_tensors_are_read_from_the_file(tmp_path: Path) -> None:
    inputs, outputs = tensors(onnx.load(Bundle.open("demo").file("hair.onnx")))
    assert [str(tensor) for tensor in (*inputs, *outputs)] == [
        "image: uint8 [N, 224, 224, 3]", "hair: float32 [N, 224, 224]",
    ]  # fmt: skip
    model = onnx.load(mapping_model(tmp_path / "m.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[1].Clear()
    with pytest.raises(EngineError, match="leaves open"):
        tensors(model)
