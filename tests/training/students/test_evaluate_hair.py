"""Measuring hair finders: folders, unseen portraits, a generator's pictures, a teacher's opinion."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ohlora.cli import app
from ohlora.errors import InvalidInputError
from ohlora.io.images import read_image
from ohlora.training.data import generated_faces
from ohlora.training.data.hair_faces import find_faces
from ohlora.training.data.portrait_faces import HELD_OUT_SEEDS, TEST_SEEDS, PortraitFace
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, EffiSegNet
from ohlora.training.students.evaluate_hair import (
    PictureSet,
    evaluate,
    evaluate_all,
    folder_set,
    generated_set,
    markdown,
    open_student,
    portrait_set,
    with_teacher,
)
from ohlora.training.students.recipes import PRESETS
from ohlora.training.students.report import SHOWN
from ohlora.training.students.sources import make_split
from ohlora.training.weights.student import save_student
from tests.support.imitators import Imitator, Stranger
from tests.support.small_distillations import write_portraits

Finder = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def all_hair(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.ones((224, 224), np.float32) for _ in images]


def knows(tests: PictureSet) -> Finder:
    """A finder that knows the answers of a set: the label, found by the picture."""
    answers = {e.image.tobytes(): e.labels["truth"] for e in tests.examples()}

    def find(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        labels = [answers[image.tobytes()] for image in images]
        return [cv2.resize(label, (224, 224), interpolation=cv2.INTER_CUBIC) / np.float32(255) for label in labels]

    return find


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people, of several sizes."""
    return write_portraits(tmp_path_factory.mktemp("faces"), [48 + 16 * (seed % 2) for seed in range(8)])


def test_known_answers_are_perfect(folder: Path) -> None:
    tests = folder_set([folder])
    steps: list[int] = []
    found = evaluate(knows(tests), tests, steps.append)
    figures = found["truth"].report()
    assert tests.size == sum(steps) == figures["faces"] == 8
    assert figures["iou"] == pytest.approx(1, abs=1e-6)
    assert figures["mse"] < 1e-6
    assert list(figures["per_face"]) == [f"real{i}" for i in range(8)]


def test_figures_are_those_of_the_maps(folder: Path) -> None:
    """All hair: IoU is the share of hair, and bald people are found wrong."""
    tests = folder_set([folder])
    figures = evaluate(all_hair, tests)["truth"].report()
    labels = [cv2.resize(e.labels["truth"], (224, 224), interpolation=cv2.INTER_CUBIC) for e in tests.examples()]
    hair = [float((label / 255 >= 0.5).mean()) for label in labels]
    assert figures["iou"] == pytest.approx(np.mean(hair), abs=1e-6)
    assert figures["iou_face_mean"] == pytest.approx(np.mean(hair), abs=1e-6)
    bald = sum(share == 0 for share in hair)
    assert bald, "seeds 0 and 2 are bald"
    assert (figures["faces_without_hair"], figures["marked_without_hair"]) == (bald, 1)
    assert figures["iou_face_min"] == 0 < figures["iou_hairy_face_min"]
    assert next(iter(figures["worst"])) == f"real{hair.index(0)}"


def test_held_out_people_are_those_of_the_training(folder: Path) -> None:
    faces = find_faces([folder])
    split = make_split(faces, PRESETS["few-faces"])
    tests = folder_set([folder], holdout=PRESETS["few-faces"].holdout)
    assert [e.name for e in tests.examples()] == [faces[i].name for i in split.test]


def test_measured_people_of_the_shipped_student(shared: Path) -> None:
    """The committed figures name held-out people: the split that gave them comes out again."""
    committed = json.loads((Path(__file__).parents[3] / "bench" / "results" / "student.json").read_text())
    tests = folder_set([shared / "data" / "faces", shared / "data" / "faces_small"], holdout=0.2)
    assert tests.size == committed["test"]["faces"]
    assert set(committed["worst_faces"]) <= {e.name for e in tests.examples()}


def test_portraits_are_unseen_ones() -> None:
    tests = portrait_set(3, resolution=48)
    examples = list(tests.examples())
    assert [e.name for e in examples] == [f"portrait_{TEST_SEEDS.start + i}" for i in range(3)]
    image, hair, _ = PortraitFace(TEST_SEEDS.start, 48).read()
    assert np.array_equal(examples[0].image, image)
    assert np.array_equal(examples[0].labels["truth"], hair)
    assert TEST_SEEDS.start not in HELD_OUT_SEEDS


def test_generated_pictures_have_the_portraits_truth() -> None:
    generator = Imitator()
    tests = generated_set(generator, 10, first_seed=3)
    examples = list(tests.examples())
    assert [e.name for e in examples] == [f"seed{3 + i:06d}" for i in range(10)]
    image, hair, _ = PortraitFace(9, generator.resolution).read()
    assert np.array_equal(examples[6].labels["truth"], hair)
    assert np.array_equal(examples[6].image, np.clip(image.astype(int) + 9, 0, 255))
    assert 0 < tests.about["difference_to_own_portrait"] < 0.5
    with pytest.raises(InvalidInputError, match="does not draw the portraits"):
        generated_set(Stranger(), 10)


class HalfSeeing:
    """A teacher that sees hair in the left half only."""

    def hair(self, image: np.ndarray) -> np.ndarray:
        hair = np.zeros(image.shape[:2], np.float32)
        hair[:, : image.shape[1] // 2] = 1
        return hair


def test_teacher_is_another_opinion() -> None:
    found = evaluate(all_hair, with_teacher(portrait_set(4, resolution=64), HalfSeeing().hair))
    assert set(found) == {"truth", "teacher", "teacher against truth"}
    assert found["teacher"].report()["iou"] == pytest.approx(0.5)
    truth = PortraitFace(TEST_SEEDS.start, 64).read()[1]
    expected = cv2.resize(truth, (224, 224), interpolation=cv2.INTER_CUBIC) >= 127.5
    left = np.arange(224)[None] < 112
    iou = (expected & left).sum() / (expected | left).sum()
    assert next(iter(found["teacher against truth"].report()["per_face"].values())) == pytest.approx(iou, abs=0.01)


def test_files_and_worst_faces(tmp_path: Path) -> None:
    tests = portrait_set(SHOWN + 3, resolution=32)
    result = evaluate_all(all_hair, {"student": "s", "runs": "torch"}, [tests, folderless(tests)], tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == result
    assert (tmp_path / "evaluation.md").read_text() == markdown(result)
    assert set(result["sets"]) == {"portraits", "again"}
    per_face = result["sets"]["portraits"]["per_face"]
    assert list(result["sets"]["portraits"]["worst"].values()) == sorted(per_face.values())[:8]
    sheet = read_image(tmp_path / "worst_portraits.jpg")
    assert sheet.shape[1] == 5 * 228 + 4  # the worst 24, five a row


def folderless(tests: PictureSet) -> PictureSet:
    return PictureSet("again", tests.size, tests.examples)


def test_empty_set_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'none' is empty"):
        evaluate(all_hair, PictureSet("none", 0, lambda: iter(())))


def test_students_from_files_and_bundles(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = EffiSegNet(SHIPPED_ENCODER, drop_path=0.0).eval()
    save_student(tmp_path / "s.safetensors", model.state_dict(), SHIPPED_ENCODER)
    find, about = open_student(tmp_path / "s.safetensors")
    assert (about["runs"], about["encoder"]) == ("torch", SHIPPED_ENCODER)
    image = PortraitFace(1, 224).read()[0]
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        assert np.abs(find([image])[0] - model(tensor)[0, 0].numpy()).max() < 1e-5
    shipped, about = open_student("demo")
    assert about["student"] == "bundle demo"
    assert shipped([image])[0].shape == (224, 224)


def test_command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated_faces, "open_generator", lambda source: Imitator())
    job = ["train", "evaluate-hair", "demo", "--data", str(folder), "--portraits", "3", "--resolution", "48"]
    done = CliRunner().invoke(app, [*job, "--generated", "g", "--count", "9", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    sets = json.loads(done.stdout)["sets"]
    assert {name: figures["faces"] for name, figures in sets.items()} == {"pictures": 8, "portraits": 3, "generated": 9}
    assert sets["portraits"]["about"]["first_seed"] == sets["generated"]["about"]["first_seed"] == TEST_SEEDS.start
    assert (tmp_path / "worst_generated.jpg").is_file()
    shown = CliRunner().invoke(app, ["train", "evaluate-hair", "demo", "--portraits", "1", "--out", str(tmp_path)])
    assert "iou_face_min" in shown.output


@pytest.mark.parametrize(
    ("options", "what"),
    [([], "nothing to measure on"), (["--portraits", "3", "--holdout", "0.2"], "--holdout chooses")],
)
def test_command_refuses(options: list[str], what: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", "evaluate-hair", "demo", *options, "--out", str(tmp_path / "o")])
    assert isinstance(done.exception, InvalidInputError)
    assert what in str(done.exception)
    assert not (tmp_path / "o").exists()
