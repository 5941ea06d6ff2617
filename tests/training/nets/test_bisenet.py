"""The 19-class parser: published names, golden outputs, the teacher's hair maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ohlora.bundle.files import file_sha256
from ohlora.errors import CheckpointError
from ohlora.training import checkpoints
from ohlora.training.nets.bisenet import HAIR, BiSeNet
from ohlora.training.teachers.bisenet import BiSeNetTeacher
from ohlora.training.teachers.registry import load_teacher
from ohlora.training.weights.bisenet_keys import PARSER
from tests.support.small_students import golden_value

TOLERANCE = 1e-4  # relative to the output's standard deviation


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return {key: golden_value(key, shape) for key, shape in PARSER.shapes().items()}


def test_published_keys(golden: Path) -> None:
    table = json.loads((golden / "segmentation" / "bisenet19_keys.json").read_text())
    assert {key: tuple(entry["shape"]) for key, entry in table.items()} == PARSER.shapes()


@torch.no_grad()
def test_golden_outputs(golden: Path, published: dict[str, Tensor]) -> None:
    model = PARSER.load(published).eval()
    with np.load(golden / "segmentation" / "bisenet19.npz") as stored:
        rng = np.random.Generator(np.random.PCG64(int(stored["input_seed"])))
        image = torch.from_numpy(rng.standard_normal((1, 3, 256, 256)).astype(np.float32))
        for made, name, step in zip(
            model(image), ("out_every8", "out16_every16", "out32_every16"), (8, 16, 16), strict=True
        ):
            difference = np.abs(made[0, :, ::step, ::step].numpy() - stored[name]).max()
            assert difference < TOLERANCE * stored[name].std(), name
    assert torch.equal(model.parse(image), model(image)[0])


def test_kind(tmp_path: Path, published: dict[str, Tensor]) -> None:
    torch.save(published, tmp_path / "parser.pth")
    model = checkpoints.load("bisenet-19", tmp_path / "parser.pth")
    assert isinstance(model, BiSeNet)
    assert not model.training
    torch.save({**published, "extra": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match="unexpected: extra"):
        checkpoints.load("bisenet-19", tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match="bisenet-19"):
        checkpoints.load("effisegnet-v4", tmp_path / "parser.pth")


class Halves(BiSeNet):
    """Sees hair on the left with logit 1, background (0) on the right with logit 1."""

    def parse(self, image: Tensor) -> Tensor:
        logits = torch.zeros(len(image), 19, *image.shape[-2:])
        logits[:, HAIR, :, : image.shape[-1] // 2] = 1
        logits[:, 0, :, image.shape[-1] // 2 :] = 1
        self.seen = image
        return logits


def test_teacher_sharpens_and_halves() -> None:
    model = Halves()
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 255
    hair = BiSeNetTeacher(model).hair(image)
    assert hair.shape == (256, 256)
    assert hair[:, :128] == pytest.approx(np.e**4 / (np.e**4 + 18))
    assert hair[:, 128:] == pytest.approx(1 / (np.e**4 + 18))
    assert model.seen.shape == (1, 3, 512, 512)
    assert model.seen[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])


def test_teacher_from_a_file(tmp_path: Path, published: dict[str, Tensor]) -> None:
    torch.save(published, tmp_path / "parser.pth")
    teacher = load_teacher(tmp_path / "parser.pth")  # which kind it is stands in its keys
    assert teacher.name == "bisenet-19"
    assert teacher.weights == file_sha256(tmp_path / "parser.pth")
    probabilities = teacher.probabilities([np.zeros((40, 40, 3), np.uint8)])
    assert probabilities.shape == (1, 19, 256, 256)
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
