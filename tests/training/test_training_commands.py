"""What users of the training commands met: a student out of a bundle, the shipped model as a teacher, files by name."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from ohlora.cli import app  # noqa: E402 - needs torch
from ohlora.errors import InvalidInputError  # noqa: E402
from ohlora.io.images import encode_image  # noqa: E402
from ohlora.io.numbered_images import CONTACT_SHEET, numbered_images  # noqa: E402
from ohlora.training import checkpoints  # noqa: E402
from ohlora.training.cnn.ensemble import find_models, present  # noqa: E402
from ohlora.training.cnn.regression import ScoreCnnResult, merge_cnns  # noqa: E402
from ohlora.training.data.hair_faces import find_faces  # noqa: E402
from ohlora.training.data.portrait_faces import PortraitFace  # noqa: E402
from ohlora.training.gan.config import PRESETS as GAN_PRESETS  # noqa: E402
from ohlora.training.gan.config import preset as gan_preset  # noqa: E402
from ohlora.training.gan.config import scaled  # noqa: E402
from ohlora.training.gan.loop import make_source  # noqa: E402
from ohlora.training.nets.effisegnet import DOCUMENTED_ENCODER  # noqa: E402
from ohlora.training.nets.score_cnns import HairstyleCnn, PropertyCnn, PropertyCnnConfig  # noqa: E402
from ohlora.training.pipeline import presets, sections  # noqa: E402
from ohlora.training.pipeline.settings import load_settings  # noqa: E402
from ohlora.training.pipeline.stages import scores as score_stages  # noqa: E402
from ohlora.training.pipeline.work import Work  # noqa: E402
from ohlora.training.students import loop as students  # noqa: E402
from ohlora.training.students.distill import HairLesson, run  # noqa: E402
from ohlora.training.students.metrics import HairMetrics  # noqa: E402
from ohlora.training.students.norms import has_unmeasured_norms, measure_norms  # noqa: E402
from ohlora.training.students.recipes import preset  # noqa: E402
from ohlora.training.students.sources import find_sources  # noqa: E402
from ohlora.training.unbundle.student import student_from_bundle  # noqa: E402
from ohlora.training.vectorfind.scorers import load_scorer  # noqa: E402
from ohlora.training.weights.student import load_student, save_student  # noqa: E402
from tests.support.small_distillations import SHORT, TINY, write_portraits  # noqa: E402


def hair_iou(student: Any, lesson: HairLesson, indices: Any) -> float:
    _, metrics = lesson.measure(student, indices, torch.device("cpu"))
    return metrics.summary()["iou"]


def test_a_student_out_of_a_bundle_trains_on_from_what_it_knows(tmp_path: Path) -> None:
    """Its norms know no statistics: in training mode they would take those of a batch for the ones it learned with."""
    folder, file = tmp_path / "faces", tmp_path / "student.safetensors"
    folder.mkdir()
    write_portraits(folder, [128] * 12)
    student = student_from_bundle("demo")
    assert has_unmeasured_norms(student)
    save_student(file, student.state_dict(), student.encoder_name)
    config = replace(
        TINY, phases=((128, 1),), batch_size=4, holdout=0.0, learning_rate=1e-5, ema=0.0, augmentation=None,
        warmup_steps=0, start_from=str(file),
    )  # fmt: skip
    sources = find_sources([folder], tmp_path, config)
    lesson, everything = HairLesson(sources, config), np.arange(12)
    images = torch.cat([image for image, _ in lesson.batches(0)])
    measured = load_student(file)
    with torch.inference_mode():
        before = measured(images)
        measure_norms(measured, images)
        assert not has_unmeasured_norms(measured)
        assert float((measured(images) - before).abs().max()) < 1e-4
        # In training mode the batch's own statistics are close to the measured ones.
        measured.train()
        assert float((measured(images) - before).abs().mean()) < 0.02
        plain = load_student(file).train()
        assert float((plain(images) - before).abs().mean()) > 0.1
    known = hair_iou(load_student(file), lesson, everything)
    assert known > 0.5
    result, _ = run([folder], tmp_path / "out", config, accelerator="cpu")
    assert result["epochs"] == 1  # three steps
    assert hair_iou(load_student(tmp_path / "out" / students.STUDENT), lesson, everything) > known - 0.05


def test_the_documented_recipe_writes_the_published_layout(tmp_path: Path) -> None:
    write_portraits(tmp_path, [64] * 6)
    changes = SHORT | {"phases": ((64, 1),), "split": "people"}
    run([tmp_path], tmp_path / "out", preset("documented", **changes), accelerator="cpu")
    own = load_student(tmp_path / "out" / students.STUDENT)
    assert own.encoder_name == DOCUMENTED_ENCODER
    read = checkpoints.load("effisegnet-v4", tmp_path / "out" / "segmentation_model_ohlora_v4.pth")
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(read(x), own(x))


def test_the_shipped_model_labels_photographs_that_a_student_learns_from(tmp_path: Path) -> None:
    photos, parsed = tmp_path / "photos", tmp_path / "parsed"
    photos.mkdir()
    for seed in range(6):
        image = PortraitFace(seed, 128).read()[0][:, 8:120]  # not square
        (photos / f"me{seed}.png").write_bytes(encode_image(image, "png"))
    command = ["train", "parse", str(photos), "--teacher", "demo", "--variant", "full-frame", "--out", str(parsed)]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["parsed"] == 6
    faces = find_faces([parsed])
    assert len(faces) == 6
    for seed, face in enumerate(faces):
        truth = PortraitFace(seed, 128).read()[1][:, 8:120].mean() / 255
        assert abs(face.read()[1].mean() / 255 - truth) < 0.05
    config = replace(TINY, **SHORT | {"phases": ((64, 1),)})
    run([parsed], tmp_path / "out", config, accelerator="cpu")
    other = CliRunner().invoke(app, [*command, "--teacher-kind", "bisenet-19"])
    assert isinstance(other.exception, InvalidInputError)
    assert "demo is a bundle" in str(other.exception)


def test_one_picture_is_refused_in_one_line(tmp_path: Path) -> None:
    write_portraits(tmp_path, [64])
    with pytest.raises(InvalidInputError, match="1 pictures cannot be split with --holdout"):
        run([tmp_path], tmp_path / "out", TINY, accelerator="cpu")


def test_a_held_out_loss_that_is_no_number_stops_and_keeps_the_epoch_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_portraits(tmp_path, [64] * 6)
    config = replace(TINY, **SHORT | {"phases": ((64, 3),)})
    original, calls = HairLesson.total, []

    def poisoned(self: HairLesson, logits: Any, label: Any) -> float:
        calls.append(1)
        return original(self, logits, label) if len(calls) == 1 else math.nan

    monkeypatch.setattr(HairLesson, "total", poisoned)
    with pytest.raises(
        Exception, match=r"stopped at epoch 2: the loss 'valid_loss' is nan. The weights of epoch 1 are"
    ):
        run([tmp_path], tmp_path / "out", config, accelerator="cpu")
    assert load_student(tmp_path / "out" / students.STUDENT)
    calls.clear()
    monkeypatch.setattr(HairLesson, "total", lambda self, logits, label: math.nan)
    with pytest.raises(Exception, match=r"stopped at epoch 1: .* no weights are kept: --restart"):
        run([tmp_path], tmp_path / "other", config, accelerator="cpu")


def test_the_folder_of_a_classifier_training_is_a_folder_of_models(tmp_path: Path) -> None:
    (tmp_path / "cnn" / "models").mkdir(parents=True)
    for fold in range(2):
        (tmp_path / "cnn" / "models" / f"gender_model_{fold}.pt").touch()
    assert present(tmp_path / "cnn") == ("gender",)
    assert [path.name for path in find_models(tmp_path / "cnn", "gender")] == ["gender_model_0.pt", "gender_model_1.pt"]


def test_a_merged_network_goes_into_the_file_that_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoints.save(PropertyCnn(PropertyCnnConfig(1 / 32)), tmp_path / "property.safetensors", "cnn-property")
    hairstyle = score_stages_hairstyle(1 / 32)
    checkpoints.save(hairstyle, tmp_path / "hairstyle.safetensors", "cnn-hairstyle")
    files = tmp_path / "property.safetensors", tmp_path / "hairstyle.safetensors"
    assert merge_cnns(*files, tmp_path / "new" / "merged.safetensors") == tmp_path / "new" / "merged.safetensors"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["merged.pth", "merged.safetensors"]
    assert load_scorer(tmp_path / "new").kind == load_scorer(tmp_path / "new" / "merged.safetensors").kind
    merge_cnns(*files, tmp_path / "folder")
    assert (tmp_path / "folder" / "ohlora_v3_merged_property_cnn.safetensors").is_file()
    with pytest.raises(InvalidInputError, match=r"holds 2 networks \(hairstyle.safetensors, property.safetensors\)"):
        load_scorer(tmp_path)


def score_stages_hairstyle(width: float) -> HairstyleCnn:
    from ohlora.training.weights.score_cnns_keys import make

    network = make("hairstyle", width)
    assert isinstance(network, HairstyleCnn)
    return network


def test_a_model_that_finds_nothing_has_precision_zero() -> None:
    metrics = HairMetrics()
    metrics.add(np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32))
    figures = metrics.summary()
    assert [figures[name] for name in ("iou", "dice", "recall", "precision")] == [0, 0, 0, 0]


def test_pictures_of_several_series_have_the_digits_of_their_names_as_numbers(tmp_path: Path) -> None:
    for name in ("ftv1_000004.jpg", "ftv2_000004.jpg", CONTACT_SHEET):
        (tmp_path / name).touch()
    assert {n: path.name for n, path in numbered_images(tmp_path).items()} == {
        1000004: "ftv1_000004.jpg",
        2000004: "ftv2_000004.jpg",
    }
    (tmp_path / "ftv2_000004.jpg").unlink()
    assert list(numbered_images(tmp_path)) == [4]


def test_a_short_training_paints_what_it_shows() -> None:
    recipe = gan_preset("portraits")
    assert make_source(recipe, []).count == recipe.images == 20_000
    assert make_source(scaled(recipe, 1), []).count == 1000
    assert make_source(scaled(recipe, 1), [], timed=True).count == 20_000


def test_trainings_compute_in_fp32_on_every_machine_unless_asked() -> None:
    assert {recipe.precision for recipe in GAN_PRESETS.values()} == {"fp32"}
    for name in presets.PRESETS:
        settings = load_settings(sections.PipelineSettings, presets.PRESETS, preset=name)
        assert Work("x", Path(), {}, {}, settings.machine, print).precision == "fp32"
    asked = load_settings(sections.PipelineSettings, presets.PRESETS, preset="demo", changes=["machine.precision=bf16"])
    assert Work("x", Path(), {}, {}, asked.machine, print).precision == "bf16"


@pytest.mark.parametrize(("longer", "warned"), [(0.7, False), (0.4, True)])
def test_a_property_cnn_below_its_floor_is_trained_longer_and_warned_of(
    longer: float, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(sections.PipelineSettings, presets.PRESETS, preset="demo")
    lengths: list[int | None] = []

    def train(images: Path, scores: Path, out: Path, recipe: Any, **more: Any) -> ScoreCnnResult:
        lengths.append(recipe.epochs)
        pose = 0.3 if len(lengths) == 1 else longer
        out.mkdir(exist_ok=True)
        (out / recipe.log_file).write_text("epoch,val_loss,pose_score_corr\n0,1.0,0.3\n")
        figures: dict[str, float | None] = {f"{name}_score_corr": 0.9 for name in ("eyes", "mouth")}
        model = out / "x.safetensors"
        return ScoreCnnResult("property", model, model, 0.4, 0, 1, {**figures, "pose_score_corr": pose}, 9, 0, 0, 1.0)

    monkeypatch.setattr(score_stages, "train_score_cnn", train)
    given = {"property_cnn": settings.property_cnn}
    work = Work("x", tmp_path, {"images": tmp_path, "scores": tmp_path}, given, settings.machine, lambda text: None)
    outcome = score_stages.score_cnn(work)
    assert lengths == [18, 36]
    assert outcome.outputs["model"].path == "longer/x.safetensors"
    assert ("warning" in outcome.figures) == warned
    if warned:
        assert "correlation of pose 0.40 is below 0.5" in outcome.figures["warning"]
