"""Hair student: published weights, exact rewrites, ONNX, own files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ohlora.engines import open_engine
from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.export.graphs.student import export_student, reference_hair
from ohlora.export.rewrites.student import rewrite_student
from ohlora.training import checkpoints
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, EffiSegNet
from ohlora.training.weights.effisegnet_keys import STUDENT
from ohlora.training.weights.student import load_student, save_student
from tests.support.small_students import golden_value, random_student

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return {key: golden_value(key, shape) for key, shape in STUDENT.shapes().items()}


@pytest.fixture
def stored(request: pytest.FixtureRequest, case: str) -> dict[str, np.ndarray]:
    """Input a is noise; b and c are a face, and stay outside the repository."""
    folder = request.getfixturevalue("golden") if case == "a" else request.getfixturevalue("shared") / "golden"
    with np.load(folder / "segmentation" / "effisegnet_b0.npz") as file:
        return {name: file[name] for name in file.files}


def scaled(image: np.ndarray) -> Tensor:
    return torch.from_numpy(((image.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None].copy())


def input_of(stored: dict[str, np.ndarray], case: str) -> Tensor:
    if case != "a":
        return scaled(stored[f"input_{case}_uint8"])
    seeded = np.random.Generator(np.random.PCG64(int(stored["input_a_seed"])))
    return torch.from_numpy(seeded.standard_normal((1, 3, 224, 224)).astype(np.float32))


def difference(made: Tensor, stored: np.ndarray) -> float:
    """Of a map [224,224], of which every pixel or every n-th is stored."""
    step = 224 // len(stored)
    return float(np.abs(made.numpy()[::step, ::step] - stored).max())


def test_published_keys(golden: Path) -> None:
    table = json.loads((golden / "segmentation" / "effisegnet_b0_keys.json").read_text())
    assert {key: tuple(entry["shape"]) for key, entry in table.items()} == STUDENT.shapes()


@pytest.mark.parametrize("case", ["a", "b", "c"])
@torch.no_grad()
def test_golden_output(published: dict[str, Tensor], stored: dict[str, np.ndarray], case: str) -> None:
    hair = STUDENT.load(published).eval()(input_of(stored, case))[0, 0]
    assert difference(hair, stored[f"output_{case}"]) < TOLERANCE


@pytest.mark.parametrize("case", ["a"])
@torch.no_grad()
def test_golden_logits_and_levels(published: dict[str, Tensor], stored: dict[str, np.ndarray], case: str) -> None:
    model = STUDENT.load(published).eval()
    image = input_of(stored, case)
    assert difference(model.logits(image)[0, 0], stored["logits_a"]) < 1e-4
    names = {"enc0_ch0_3": 4, "enc1_ch0_3": 2, "enc2_ch0_7": 1, "enc3_ch0_15": 1, "enc4": 1}
    for (name, step), level in zip(names.items(), model.encoder(image), strict=True):
        made, wanted = level[0].numpy(), stored[name]
        assert np.abs(made[: len(wanted), ::step, ::step] - wanted).max() < 1e-4, name


@pytest.mark.parametrize("case", ["a", "b"])
@torch.no_grad()
def test_golden_through_rewrites(published: dict[str, Tensor], stored: dict[str, np.ndarray], case: str) -> None:
    hair = rewrite_student(STUDENT.load(published))(input_of(stored, case))[0, 0]
    assert difference(hair, stored[f"output_{case}"]) < TOLERANCE


@pytest.mark.parametrize("encoder", ["tf_efficientnet_b0", SHIPPED_ENCODER])
@torch.no_grad()
def test_rewrite_is_equal_and_smaller(encoder: str) -> None:
    model = random_student(encoder)
    small = rewrite_student(model)
    image = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert (model(image) - small(image)).abs().max() < TOLERANCE
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert not [m for m in small.modules() if isinstance(m, torch.nn.BatchNorm2d)]


@torch.no_grad()
def test_halved_decoder_equals_the_documented_order() -> None:
    model = random_student(SHIPPED_ENCODER)
    decoder, levels = model.decoder, model.encoder(torch.rand(1, 3, 224, 224) * 2 - 1)
    maps = [branch(x) for branch, x in zip(decoder.branches, levels, strict=True)]
    total = sum(torch.nn.functional.interpolate(m, size=(224, 224), mode="nearest") for m in maps)
    documented = decoder.head(decoder.ghost2(decoder.ghost1(decoder.norm(total))))
    assert (decoder(levels, (224, 224)) - documented).abs().max() < 1e-4


def test_halved_decoder_has_the_same_batch_statistics() -> None:
    model = random_student(SHIPPED_ENCODER).train()
    levels = [level.detach() for level in model.encoder(torch.rand(4, 3, 224, 224) * 2 - 1)]
    decoder = model.decoder
    with torch.no_grad():
        maps = [branch(x) for branch, x in zip(decoder.branches, levels, strict=True)]
        total = sum(torch.nn.functional.interpolate(m, size=(224, 224), mode="nearest") for m in maps)
        documented = decoder.head(decoder.ghost2(decoder.ghost1(decoder.norm(total))))
        assert (decoder(levels, (224, 224)) - documented).abs().max() < 1e-3


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenetv3_small_050", "vgg11"])
@torch.no_grad()
def test_any_encoder_with_five_levels(encoder: str) -> None:
    """EfficientNet relatives are folded, others kept; levels of families that start at full size are found."""
    model = random_student(encoder)
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert (model(image) - rewrite_student(model)(image)).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    ("encoder", "what"),
    [("convnext_atto", "five feature levels.*fewer"), ("vit_tiny_patch16_224", "strides"), ("nope", "unknown encoder")],
)
def test_encoders_without_five_levels(encoder: str, what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        EffiSegNet(encoder)


def test_rewrite_refuses_unknown_blocks() -> None:
    model = random_student(SHIPPED_ENCODER)
    model.encoder.blocks[1][0] = torch.nn.Identity()
    with pytest.raises(CheckpointError, match="Identity"):
        rewrite_student(model)


def test_exported_graph(tmp_path: Path) -> None:
    model = random_student(SHIPPED_ENCODER)
    export_student(model, tmp_path / "hair.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3)).astype(np.uint8)
    engine = open_engine(tmp_path / "hair.onnx", backend="onnxruntime", threads=1)
    hair = engine(image=images)["hair"]
    assert hair.shape == (3, 224, 224)
    assert np.abs(hair - reference_hair(model, images)).max() < 5e-3  # float16 weights
    assert b"/training/" not in (tmp_path / "hair.onnx").read_bytes(), "the exporter's source paths are left"


def test_loading_through_the_registry(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(published, tmp_path / "x.pth")
    assert isinstance(checkpoints.load("effisegnet-v4", tmp_path / "x.pth"), EffiSegNet)
    del published["conv6.weight"]
    torch.save(published, tmp_path / "y.pth")
    with pytest.raises(CheckpointError, match=r"conv6\.weight"):
        checkpoints.load("effisegnet-v4", tmp_path / "y.pth")


def test_own_file(tmp_path: Path) -> None:
    model = random_student(SHIPPED_ENCODER)
    save_student(tmp_path / "s.safetensors", model.state_dict(), model.encoder_name)
    again = load_student(tmp_path / "s.safetensors")
    assert again.encoder_name == SHIPPED_ENCODER
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    (tmp_path / "broken.safetensors").write_bytes((tmp_path / "s.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        load_student(tmp_path / "broken.safetensors")
