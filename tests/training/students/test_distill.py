"""Distillation: losses and figures against reference data, augmentation, split, a whole small run with resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training.data.augment import Augmentation, augment, clutter, recolor_hair
from ohlora.training.data.hair_faces import find_faces
from ohlora.training.data.people import distances, group_people, split_people, thumbnails
from ohlora.training.students.distill import HairLesson, build_model, run
from ohlora.training.students.metrics import LOSSES, HairMetrics
from ohlora.training.students.recipes import PRESETS, DistillConfig, parse_phases, preset
from ohlora.training.students.report import write_report
from ohlora.training.students.sources import Sources, make_split
from ohlora.training.weights.effisegnet_keys import IMAGENET_LAYOUT
from ohlora.training.weights.student import load_student
from tests.support.small_distillations import TINY, portrait, write_face

# --- against reference data -----------------------------------------------------------------------------------------


def kd_data(golden: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    expected = json.loads((golden / "segmentation" / "kd_metrics.json").read_text())
    rng = np.random.Generator(np.random.PCG64(expected["seed"]))
    logits = rng.standard_normal((expected["n"], 1, 224, 224)).astype(np.float32)
    label = (rng.integers(0, 256, size=logits.shape).astype(np.uint8).astype(np.float64) / 255).astype(np.float32)
    return expected, logits, label


def test_documented_losses(golden: Path) -> None:
    expected, logits, label = kd_data(golden)
    for name, key in (("mse", "mse_sum"), ("soft_bce", "bce_sum"), ("kl", "kl_sum")):
        value = LOSSES[name](torch.from_numpy(logits).double(), torch.from_numpy(label).double())
        assert float(value) == pytest.approx(expected["loss_float64"][key], rel=1e-6)


def test_soft_bce_clamps_its_logs_as_documented() -> None:
    logits = torch.tensor([-500.0, 500.0, -99.0, 3.0], dtype=torch.float64)
    label = torch.tensor([1.0, 0.25, 1.0, 0.5], dtype=torch.float64)
    p = torch.sigmoid(logits)
    log_p, log_not_p = p.log().clamp(min=-100), torch.sigmoid(-logits).log().clamp(min=-100)
    documented = -(label * log_p + (1 - label) * log_not_p).sum()
    assert float(LOSSES["soft_bce"](logits, label)) == pytest.approx(float(documented), rel=1e-12)


def test_documented_validation_loss(golden: Path) -> None:
    """Sum over pixels and pictures, over 224*224 and the number of pictures."""
    expected, logits, label = kd_data(golden)
    rest = iter(logits)

    class Known:
        def eval(self) -> None: ...

        def logits(self, image: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.stack([next(rest) for _ in image]))

    class Picture:
        def __init__(self, label: np.ndarray) -> None:
            self.label = label

        def read(self) -> tuple[np.ndarray, np.ndarray, None]:
            return np.zeros((224, 224, 3), np.uint8), np.rint(self.label * 255).astype(np.uint8), None

    faces: list[Any] = [Picture(one[0]) for one in label]
    lesson = HairLesson(Sources(faces, [], {}, {}), replace(TINY, loss="soft_bce"))
    value, _ = lesson.measure(Known(), np.arange(len(faces)), torch.device("cpu"))  # type: ignore[arg-type]
    assert value == pytest.approx(expected["validation_loss_per_image_pixel_bce"], rel=1e-5)


def test_documented_metrics(golden: Path) -> None:
    expected, logits, label = kd_data(golden)
    metrics = HairMetrics()
    for one, truth in zip(1 / (1 + np.exp(-logits)), label, strict=True):
        metrics.add(one[0], truth[0])
    made = metrics.summary()
    for name in ("iou", "dice", "recall", "precision"):
        assert made[name] == pytest.approx(expected["upstream_test_metrics"][name], abs=1e-9)
    assert made["mse"] == pytest.approx(expected["true_pixel_mse"], rel=1e-6)
    # The published column is a quarter of the true error.
    assert made["mse_published"] == pytest.approx(expected["upstream_test_metrics"]["mse"], rel=1e-6)


def test_faces_without_hair_count_as_found_where_nothing_is_marked() -> None:
    none, some = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
    some[:2] = 1
    empty = HairMetrics()
    empty.add(none, none)
    figures = empty.summary()
    assert all(figures[name] == 1 for name in ("iou", "dice", "recall", "precision", "iou_face_min"))
    assert (figures["mse"], figures["faces_without_hair"], figures["marked_without_hair"]) == (0, 1, 0)
    mixed = HairMetrics()
    for predicted, label in ((some, some), (none, none), (some, none)):
        mixed.add(predicted, label)
    assert mixed.per_face_iou().round(6).tolist() == [1, 1, 0]
    figures = mixed.summary()
    assert figures["iou"] == pytest.approx(0.5)  # pooled: 8 of 16 marked pixels are hair
    assert (figures["faces_without_hair"], figures["marked_without_hair"]) == (2, 0.25)
    assert figures["iou_hairy_face_min"] == pytest.approx(1)
    hairy = HairMetrics()
    hairy.add(some, some)
    assert "faces_without_hair" not in hairy.summary()


@pytest.mark.parametrize("loss", ["soft_bce", "mse"])
def test_losses_teach_that_there_is_no_hair(loss: str) -> None:
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    LOSSES[loss](logits, torch.zeros(1, 1, 8, 8)).backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()  # a step against it lowers every probability


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    for person in range(6):
        for variant in range(2):
            image, hair, parsing = portrait(person, variant)
            write_face(folder, f"p{person}_{variant}.jpg", image, hair_soft=hair, parsing19=parsing)
    return folder


def test_pictures_are_paired_by_name(faces_folder: Path, tmp_path: Path) -> None:
    faces = find_faces([faces_folder])
    assert len(faces) == 12
    assert all(face.picture.stem == face.label.stem for face in faces)
    for name in ("face_000003.png", "parsing_hair_label_000003.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    (documented,) = find_faces([tmp_path])
    assert documented.label.name == "parsing_hair_label_000003.png"
    with pytest.raises(InvalidInputError, match="no labelled picture"):
        find_faces([faces_folder / "hair_soft"])


def test_people_stay_on_one_side(faces_folder: Path) -> None:
    faces = find_faces([faces_folder])
    distance = distances(thumbnails([face.read()[0] for face in faces]))
    people = group_people(distance)
    names = [face.picture.stem.split("_")[0] for face in faces]
    assert len(set(people)) == 6
    assert all((people[i] == people[j]) == (names[i] == names[j]) for i in range(12) for j in range(12))
    train, held, dropped = split_people(distance, 0.34, seed=1)
    assert len(held) == 4
    assert not {names[i] for i in held} & {names[i] for i in train}
    assert sorted([*train, *held, *dropped]) == list(range(12))


def test_real_people_stay_on_one_side(shared: Path) -> None:
    folders = [shared / "data" / "faces", shared / "data" / "faces_small"]
    faces = find_faces(folders)
    assert len(faces) == 388
    split = make_split(faces, PRESETS["few-faces"])
    sides = {i in set(split.test) for i, face in enumerate(faces) if face.picture.stem.startswith("finalv3_")}
    assert len(sides) == 1, "the one person of finalv3_* is on both sides"


def test_documented_split(faces_folder: Path) -> None:
    faces, config = find_faces([faces_folder]), PRESETS["documented"]
    split = make_split(faces, config)
    assert (len(split.train), len(split.valid), len(split.test)) == (9, 1, 2)
    assert sorted(np.concatenate([split.train, split.valid, split.test])) == list(range(12))
    assert np.array_equal(split.train, make_split(faces, config).train)  # seeded, unlike upstream's
    assert not np.array_equal(split.train, make_split(faces, replace(config, seed=8)).train)


# --- recipes --------------------------------------------------------------------------------------------------------


def test_documented_recipe_is_the_default_and_complete() -> None:
    assert next(iter(PRESETS)) == "documented"
    config = PRESETS["documented"]
    wanted = {
        "encoder": "tf_efficientnet_b0", "loss": "soft_bce", "batch_size": 16, "learning_rate": 1e-4, "epochs": 240,
        "patience": 20, "weight_decay": 0.01, "schedule": "exponential", "augmentation": None, "split": "random",
        "reduction": "sum", "ema": 0.0, "clip_norm": 0.0, "drop_path": 0.2,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in wanted} == wanted


def test_newer_fields_leave_older_runs_alone() -> None:
    assert not {"mix", "reduction", "encoder_weights"} & set(PRESETS["few-faces"].as_dict())
    assert PRESETS["documented"].as_dict()["reduction"] == "sum"


def test_documented_encoder_weights(tmp_path: Path) -> None:
    """The published ImageNet file: its own block names, a classifier that is left out, no batch counters."""
    names = [key for key in IMAGENET_LAYOUT.names if not key.endswith("num_batches_tracked")]
    assert {"_conv_stem.weight", "_blocks.15._project_conv.weight", "_blocks.0._se_reduce.bias"} <= set(names)
    config = replace(PRESETS["documented"], encoder_weights=str(tmp_path / "b0.pth"))
    shapes = IMAGENET_LAYOUT.shapes(build_model(PRESETS["documented"]).encoder)
    file = {key: torch.rand(shapes[key]) + 0.5 for key in names} | {"_fc.weight": torch.zeros(1000, 1280)}
    torch.save(file, tmp_path / "b0.pth")
    encoder = build_model(config).encoder.state_dict()
    assert torch.equal(encoder["blocks.6.0.conv_pwl.weight"], file["_blocks.15._project_conv.weight"])
    del file["_blocks.3._bn1.weight"]
    torch.save(file, tmp_path / "b0.pth")
    with pytest.raises(CheckpointError, match=r"b0\.pth.*_blocks\.3\._bn1\.weight"):
        build_model(config)
    with pytest.raises(InvalidInputError, match="tf_efficientnet_b0"):
        build_model(replace(config, encoder="resnet18"))


# --- augmentation ---------------------------------------------------------------------------------------------------


def test_augmentation_is_a_function_of_its_seed() -> None:
    image, hair, parsing = portrait(3, 0)
    donor = portrait(4, 0)[:2]
    first, again, other = (
        augment(image, hair, parsing, 128, np.random.default_rng(seed), Augmentation(), donor) for seed in (1, 1, 2)
    )
    assert first[0].shape == (128, 128, 3)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_clutter_hides_hair_and_adds_none() -> None:
    image, hair, _ = portrait(3, 0)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        changed, label = clutter(image, hair, rng, portrait(5, 0)[:2] if seed % 2 else None)
        assert (label <= hair).all()
        # Where the picture is untouched so is the label.
        same = (changed == image).all(2)
        assert np.abs(label[same].astype(int) - hair[same]).mean() < 2


def test_new_hair_colour_changes_hair_only() -> None:
    image, hair, _ = portrait(3, 0)
    changed = recolor_hair(image, hair, np.random.default_rng(0))
    assert np.abs(changed[hair == 0].astype(int) - image[hair == 0]).max() <= 1
    assert np.abs(changed[hair == 255].astype(int) - image[hair == 255]).max() > 10


# --- the stage ------------------------------------------------------------------------------------------------------


def test_phases() -> None:
    assert parse_phases("128:60,224:28") == ((128, 60), (224, 28))
    assert [TINY.size_at(epoch) for epoch in range(4)] == [64, 64, 96, 96]
    for bad in ("", "128", "100:3", "128:0", "a:b"):
        with pytest.raises(InvalidInputError, match="phases"):
            parse_phases(bad)


def test_unknown_recipe() -> None:
    with pytest.raises(InvalidInputError, match="documented, few-faces or portraits"):
        preset("nope")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_student(folder / "student.safetensors").state_dict()


def stop_after(epochs: int) -> Any:
    def report(row: dict[str, Any]) -> None:
        if row["epoch"] + 1 == epochs:
            raise KeyboardInterrupt

    return report


def test_stopped_run_resumes_to_the_same_weights(faces_folder: Path, tmp_path: Path) -> None:
    config = replace(TINY, phases=((64, 3),))
    whole, _ = run([faces_folder], tmp_path / "a", config, accelerator="cpu")
    with pytest.raises(KeyboardInterrupt):
        run([faces_folder], tmp_path / "b", config, accelerator="cpu", report=stop_after(2))
    last = tmp_path / "b" / "last.pt"
    saved = torch.load(last, weights_only=True)
    torch.save({key: saved[key] for key in saved.keys() - {"format", "logged"}}, last)  # as before `training/loop`
    resumed, _ = run([faces_folder], tmp_path / "b", config, accelerator="cpu")
    one, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert whole["test"] == resumed["test"]
    with pytest.raises(InvalidInputError, match=r"other config \(seed was 7, now 1\)"):
        run([faces_folder], tmp_path / "b", replace(config, seed=1), accelerator="cpu")
    with pytest.raises(InvalidInputError, match=r"other config \(reduction was mean, now sum\)"):
        run([faces_folder], tmp_path / "b", replace(config, reduction="sum"), accelerator="cpu")
    write_report(tmp_path / "a", whole, find_faces([faces_folder]))
    assert "held-out people" in (tmp_path / "a" / "report.md").read_text()
    assert (tmp_path / "a" / "overlays.jpg").stat().st_size > 1000
    assert (tmp_path / "a" / "valid_loss.csv").read_text().count("\n") == 4


def test_training_on_everything_keeps_the_last_weights(faces_folder: Path, tmp_path: Path) -> None:
    config: DistillConfig = replace(TINY, phases=((64, 1),), holdout=0.0)
    result, _ = run([faces_folder], tmp_path / "a", config, accelerator="cpu")
    assert "test" not in result
    assert result["pictures"]["train"] == 12
    further = replace(config, start_from=str(tmp_path / "a" / "student.safetensors"))
    run([faces_folder], tmp_path / "b", further, accelerator="cpu")
    assert any(
        not torch.equal(a, b)
        for a, b in zip(weights(tmp_path / "a").values(), weights(tmp_path / "b").values(), strict=True)
    )


def test_command(faces_folder: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ohlora.cli import app

    job = ["train", "distill", "--data", str(faces_folder), "--out", str(tmp_path), "--phases", "64:1", "--no-imagenet"]
    done = CliRunner().invoke(app, [*job, "--recipe", "few-faces", "--batch-size", "6", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["config"]["phases"], report["config"]["imagenet"]) == ([[64, 1]], False)
    assert (tmp_path / "report.md").is_file()
    assert load_student(tmp_path / "student.safetensors").encoder_name == report["config"]["encoder"]


def test_patience_is_kept_by_a_resumed_run(faces_folder: Path, tmp_path: Path) -> None:
    config = replace(TINY, phases=((64, 9),), patience=1, learning_rate=0.0)  # nothing ever gets better
    stopped, _ = run([faces_folder], tmp_path, config, accelerator="cpu")
    assert stopped["epochs"] < 9
    assert run([faces_folder], tmp_path, config, accelerator="cpu")[0]["epochs"] == stopped["epochs"]


@pytest.mark.slow
def test_it_learns(faces_folder: Path, tmp_path: Path) -> None:
    config = replace(PRESETS["few-faces"], phases=((128, 10), (224, 30)), batch_size=4, warmup_steps=10)
    result, _ = run([faces_folder], tmp_path / "a", config, accelerator="cpu")
    assert result["test"]["iou"] > 0.8
