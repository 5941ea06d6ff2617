"""The parsing student: labels, weights, figures, a small run with resume, export, bundle, runtime, command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from ohlora.bundle import Bundle
from ohlora.engines import open_engine
from ohlora.engines.selftest import Probe, load_probe, save_probe
from ohlora.errors import BundleError, CheckpointError, EngineError, InvalidInputError
from ohlora.export.bundle.builder import build_bundle
from ohlora.export.bundle.students import smallest_margin
from ohlora.export.graphs.student import export_student, reference_logits
from ohlora.export.rewrites.student import rewrite_student
from ohlora.photos.segmentation import documented_classes
from ohlora.render.renderer import Renderer
from ohlora.training.data import portrait_faces
from ohlora.training.data.augment import Augmentation, beside
from ohlora.training.data.hair_faces import find_faces, to_tensor_layout
from ohlora.training.data.parsing_classes import NAMES11, NAMES13
from ohlora.training.data.portrait_faces import PortraitFace
from ohlora.training.nets.effisegnet import SHIPPED_ENCODER, EffiSegNet
from ohlora.training.students.parsing.distill import (
    MIRRORED,
    build_parser,
    class_example,
    class_loss,
    class_shares,
    class_weights,
    hair_loss,
    parsing_task,
    run,
)
from ohlora.training.students.parsing.faces import find_parsed_faces, with_classes
from ohlora.training.students.parsing.metrics import ParsingMetrics
from ohlora.training.students.parsing.report import figures_line, write_report
from ohlora.training.students.recipes import ParsingConfig, PortraitMix
from ohlora.training.students.report import epoch_line
from ohlora.training.students.sources import find_sources, make_split
from ohlora.training.weights.student import load_student, save_student
from tests.support.small_distillations import SHORT, write_portraits
from tests.support.small_students import parser_bundle, random_parser, random_student

STILL = Augmentation(
    rotation=0, zoom=(1, 1), shift=0, perspective=0, elastic=0, flip=0, new_background=0, new_hair_color=0,
    color=0, gray=0, degrade=0, occlude=0, clutter=0,
)  # fmt: skip
CLASSES = len(NAMES11)
MIX = PortraitMix(portraits=4, held_out=1, resolution=64)
TINY = ParsingConfig(**SHORT, mix=MIX)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six "real" people."""
    return write_portraits(tmp_path_factory.mktemp("parsed"), [64] * 6)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "parser.safetensors"
    model = random_parser()
    save_student(path, model.state_dict(), model.encoder_name)
    return path


# --- labels ----------------------------------------------------------------------------------------------------------


def test_label_folders(folder: Path, tmp_path: Path) -> None:
    faces = find_parsed_faces([folder])
    assert [face.name for face in faces] == [face.name for face in find_faces([folder])]
    assert faces[0].parsing is None
    image, classes, _ = faces[0].read()
    assert np.array_equal(classes, PortraitFace(0, 64).read_classes()[1])
    assert image.shape == (64, 64, 3)
    # The layout of `train parse`, and a 19-class map, whose sides are told by position.
    cv2.imwrite(str(tmp_path / "face_000003.png"), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "parsing_000003.png"), np.full((8, 8), 10, np.uint8))
    cv2.imwrite(str(tmp_path / "parsing_visualization_000003.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "parsing19").mkdir()
    nineteen = np.zeros((8, 8), np.uint8)
    nineteen[2, 1:3], nineteen[2, 5:7] = 5, 4  # the left eye called right, and the other way round
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "parsing19" / "other.png"), nineteen)
    documented, other = find_parsed_faces([tmp_path])
    assert (documented.name, int(documented.read()[1].min())) == ("face_000003", 10)
    _, classes, parsing = other.read()
    assert classes[2].tolist() == [0, 4, 4, 0, 0, 5, 5, 0]
    assert parsing is not None
    cv2.imwrite(str(tmp_path / "parsing_000003.png"), np.full((8, 8), 11, np.uint8))
    with pytest.raises(InvalidInputError, match=r"parsing_000003\.png holds class 11"):
        documented.read()
    with pytest.raises(InvalidInputError, match="no parsed picture"):
        find_parsed_faces([folder / "parsing11"])


def test_reference_folders_hold_the_same_people_out(shared: Path) -> None:
    folders = [shared / "data" / "faces", shared / "data" / "faces_small"]
    parsed, hair = find_parsed_faces(folders), find_faces(folders)
    assert [face.picture for face in parsed] == [face.picture for face in hair]
    assert parsed[0].label.parent.name == "parsing11"
    assert parsed[-1].label.parent.name == "parsing19"
    config = ParsingConfig()
    few = [0, 5, 20, 40, 100, 200, 300]
    assert np.array_equal(
        make_split([parsed[i] for i in few], config).test, make_split([hair[i] for i in few], config).test
    )


def test_drawn_pictures_bring_their_classes(tmp_path: Path) -> None:
    portrait = PortraitFace(1, 32)
    drawn = with_classes(portrait)
    assert drawn.name == portrait.name
    assert np.array_equal(drawn.read()[1], portrait.read_classes()[1])
    portrait_faces.write_portraits(tmp_path / "set", count=2, resolution=32)
    config = replace(TINY, mix=replace(MIX, portraits=0, folder=str(tmp_path / "set"), resolution=32))
    (tmp_path / "real").mkdir()
    write_portraits(tmp_path / "real", [32] * 4)
    task = parsing_task(config)
    sources = find_sources([tmp_path / "real"], tmp_path, config, find=task.find, view=task.view)
    for split in sources.splits.values():
        for index in (*split.train, *split.test):
            classes = sources.pictures[index].read()[1]
            assert classes.max() <= 10
            assert {1, 6} <= set(np.unique(classes)), "no skin or nose: this is no class map"


# --- examples --------------------------------------------------------------------------------------------------------


def test_mirrored_face_has_its_sides_exchanged() -> None:
    sample = PortraitFace(3, 64).read_classes()
    rng = np.random.default_rng
    plain, shares = class_example(sample, 64, rng(0), STILL, sample)
    other, mirrored = class_example(sample, 64, rng(0), replace(STILL, flip=1.0), sample)
    assert np.abs(plain.astype(int) - other[:, ::-1]).max() <= 3  # but for the little aspect jitter's resampling
    assert np.abs(shares - mirrored[MIRRORED[:CLASSES]][..., ::-1]).mean() < 0.01
    for left, right in ((2, 3), (4, 5)):
        for one in (shares, mirrored):  # the left eye is on the left, mirrored or not
            columns = [np.average(np.arange(64), weights=one[c].sum(0) + 1e-9) for c in (left, right)]
            assert columns[0] < columns[1]


@given(st.integers(0, 2**32 - 1))
def test_shares_add_up_whatever_happens(seed: int) -> None:
    sample = (np.full((40, 56, 3), 90, np.uint8), np.zeros((40, 56), np.uint8), None)
    sample[1][10:30, 12:40] = np.random.default_rng(seed).integers(0, 11, (20, 28))
    image, shares = class_example(sample, 32, np.random.default_rng(seed), Augmentation(), sample)
    assert image.shape == (32, 32, 3)
    assert shares.shape == (CLASSES, 32, 32)
    assert np.abs(shares.sum(0) - 1).max() < 1e-5
    assert shares.min() >= 0


def test_what_is_hidden_becomes_background() -> None:
    classes = np.full((64, 64), 10, np.uint8)
    sample = (np.full((64, 64, 3), 200, np.uint8), classes, None)
    image, shares = class_example(sample, 64, np.random.default_rng(2), replace(STILL, occlude=1.0), sample)
    hidden = (image != 200).any(2)
    assert 50 < hidden.sum() < 4000
    assert shares[0][hidden].mean() > 0.9
    assert shares[10][~hidden].min() > 0.99


def test_nothing_of_another_face_is_pasted_in() -> None:
    """Clutter shows the donor outside its person only: hair and face of the donor would be unlabelled classes."""
    plain = (np.full((64, 64, 3), 10, np.uint8), np.zeros((64, 64), np.uint8), None)
    color = np.array([250, 3, 121], np.uint8)
    donor = (np.tile(color, (64, 64, 1)), np.ones((64, 64), np.uint8), None)  # all skin
    for seed in range(60):
        image, _ = class_example(plain, 64, np.random.default_rng(seed), replace(STILL, clutter=1.0), donor)
        assert (image == color).all(2).sum() < 5  # a drawn pattern may hit the colour by chance


def test_shares_of_a_smaller_map() -> None:
    classes = np.zeros((4, 4), np.uint8)
    classes[:, 1:] = 10
    assert class_shares(classes, 2)[10].tolist() == [[pytest.approx(0.5, abs=0.01), 1.0]] * 2
    ids = PortraitFace(2, 64).read_classes()[1]  # not a whole factor
    shares = class_shares(ids, 56)
    assert np.abs(shares.sum(0) - 1).max() < 1e-5
    nearest = cv2.resize(ids, (56, 56), interpolation=cv2.INTER_NEAREST)
    assert (shares.argmax(0) == nearest).mean() > 0.93


# --- loss and figures ------------------------------------------------------------------------------------------------


def test_class_weights(folder: Path) -> None:
    faces = find_parsed_faces([folder])
    share = np.bincount(np.concatenate([face.read()[1].ravel() for face in faces]), minlength=CLASSES) / (6 * 64 * 64)
    everyone = np.arange(6)
    assert torch.allclose(class_weights(faces, everyone, ParsingConfig(balance=0.0)), torch.ones(CLASSES))
    alike = class_weights(faces, everyone, ParsingConfig(balance=1.0)).numpy() * share
    present = share > 1e-4
    assert np.allclose(alike[present], alike[present][0])  # every class has the same say
    some = class_weights(faces, everyone, ParsingConfig(balance=0.35)).numpy()
    assert some[4] > some[1] > some[0] or share[0] < share[1]
    assert float((some * share).sum()) == pytest.approx(1)


def test_class_loss() -> None:
    logits = torch.randn(2, CLASSES, 3, 4, dtype=torch.float64, requires_grad=True)
    shares = torch.softmax(torch.randn(2, CLASSES, 3, 4, dtype=torch.float64), 1)
    weights = torch.rand(CLASSES, dtype=torch.float64)
    by_hand = -(weights[:, None, None] * shares * F.log_softmax(logits, 1)).sum() / (2 * 3 * 4)
    assert torch.allclose(class_loss(logits, shares, weights, "soft_ce"), by_hand)
    ids = F.one_hot(shares.argmax(1), CLASSES).permute(0, 3, 1, 2).double()
    assert torch.allclose(class_loss(logits, shares, weights, "hard_ce"), class_loss(logits, ids, weights, "soft_ce"))
    with pytest.raises(InvalidInputError, match="soft_ce or hard_ce"):
        ParsingConfig(loss="mse")
    with pytest.raises(InvalidInputError, match="balance"):
        ParsingConfig(balance=1.5)


def test_figures() -> None:
    truth, found = np.array([[0, 0, 1, 10]], np.uint8), np.array([[0, 1, 1, 0]], np.uint8)
    metrics = ParsingMetrics()
    metrics.add(found, truth)
    figures = metrics.summary()
    assert figures["iou_background"] == pytest.approx(1 / 3)
    assert figures["f1_skin"] == pytest.approx(2 / 3)
    assert figures["iou_hair"] == 0
    assert figures["iou"] == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert figures["accuracy"] == 0.5
    assert "iou_nose" not in figures  # in neither map
    metrics.add(truth, truth)
    assert metrics.per_face_iou().tolist() == pytest.approx([figures["iou"], 1.0])
    assert metrics.summary()["iou_face_min"] == pytest.approx(figures["iou"])


def person(left: int, hair: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGB, classes and 19 classes: a body of 20 columns from `left` on, its upper half hair; `hair` is its gray."""
    image, classes, parsing = (np.zeros((64, 64), np.uint8) for _ in range(3))
    body = np.s_[16:, left : left + 20]
    classes[body], parsing[body], image[body] = 1, 1, 90
    classes[16:40, left : left + 20], parsing[16:40, left : left + 20], image[16:40, left : left + 20] = 10, 17, hair
    return np.repeat(image[..., None], 3, 2), classes, parsing


@given(st.integers(0, 2**32))
def test_a_companion_brings_its_classes_and_hides_what_is_behind_it(seed: int) -> None:
    first, other = person(22, 150), person(22, 250)
    image, classes = beside(first, other, np.random.default_rng(seed), first[0])
    new = classes != first[1]
    assert np.isin(classes[new], [1, 10]).all()
    bright = image[..., 0] > 230  # well inside the other's hair
    assert (classes[bright] == 10).all()
    far = ~cv2.dilate(new.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) & ~cv2.dilate(
        (image != first[0]).any(2).astype(np.uint8), np.ones((9, 9), np.uint8)
    ).astype(bool)
    assert np.array_equal(image[far], first[0][far])


# --- the network -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_classes_exclude_each_other_also_through_rewrites() -> None:
    torch.manual_seed(3)
    model = EffiSegNet(SHIPPED_ENCODER, CLASSES).eval()
    image = torch.rand(1, 3, 224, 224) * 2 - 1
    probabilities = model(image)
    assert torch.allclose(probabilities.sum(1), torch.ones(1, 224, 224), atol=1e-5)
    small = rewrite_student(model)
    assert (small(image) - probabilities).abs().max() < 1e-5
    assert (small.logits(image) - model.logits(image)).abs().max() < 1e-4


def test_start_from_a_hair_student(tmp_path: Path, weights_file: Path) -> None:
    hair = random_student(SHIPPED_ENCODER)
    save_student(tmp_path / "hair.safetensors", hair.state_dict(), hair.encoder_name)
    model = build_parser(replace(TINY, start_from=str(tmp_path / "hair.safetensors")))
    assert model.outputs == CLASSES
    assert torch.equal(model.decoder.head.weight[10], hair.decoder.head.weight[0])
    assert torch.equal(model.encoder.conv_stem.weight, hair.encoder.conv_stem.weight)
    again = build_parser(replace(TINY, start_from=str(weights_file)))
    assert torch.equal(again.decoder.head.weight, random_parser().decoder.head.weight)


def test_students_are_not_taken_for_each_other(tmp_path: Path, weights_file: Path) -> None:
    with pytest.raises(CheckpointError, match="parsing student of 11 classes, needed is a hair student"):
        load_student(weights_file)
    hair = random_student(SHIPPED_ENCODER)
    save_student(tmp_path / "hair.safetensors", hair.state_dict(), hair.encoder_name)
    with pytest.raises(CheckpointError, match="is a hair student, needed is a parsing student"):
        load_student(tmp_path / "hair.safetensors", outputs=CLASSES)


def test_a_parser_of_eleven_classes_becomes_one_of_thirteen(weights_file: Path) -> None:
    model = build_parser(replace(TINY, outputs=13, start_from=str(weights_file)))
    assert model.outputs == 13
    assert torch.equal(model.decoder.head.weight[:11], random_parser().decoder.head.weight)


def test_hair_loss_is_that_of_hair_against_everything_else() -> None:
    logits = torch.randn(2, 13, 3, 4, dtype=torch.float64)
    shares = torch.softmax(torch.randn(2, 13, 3, 4, dtype=torch.float64), 1)
    hair = torch.softmax(logits, 1)[:, 10]
    assert torch.allclose(hair_loss(logits, shares), F.binary_cross_entropy(hair, shares[:, 10]))


# --- the stage -------------------------------------------------------------------------------------------------------


def test_stopped_run_resumes_to_the_same_weights(folder: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    whole, sources = run([folder], tmp_path / "a", TINY, accelerator="cpu", report=rows.append)

    def stop(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([folder], tmp_path / "b", TINY, accelerator="cpu", report=stop)
    resumed, _ = run([folder], tmp_path / "b", TINY, accelerator="cpu")
    one, other = (load_student(tmp_path / name / "student.safetensors", outputs=11).state_dict() for name in "ab")
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert whole["sources"] == resumed["sources"]
    assert {"iou", "accuracy", "iou_hair", "f1_hair"} <= set(whole["sources"]["portraits"]["test"])
    assert "portraits IoU" in epoch_line(rows[0], 2)
    assert "hair 0." in figures_line(tmp_path / "a", whole)
    with pytest.raises(InvalidInputError, match=r"other config \(balance was 0.35, now 0.5\)"):
        run([folder], tmp_path / "b", replace(TINY, balance=0.5), accelerator="cpu")
    write_report(tmp_path / "a", whole, sources.pictures)
    report = (tmp_path / "a" / "report.md").read_text()
    assert "| hair |" in report
    assert "accuracy" in report
    for sheet in ("overlays.jpg", "overlays_portraits.jpg"):
        assert (tmp_path / "a" / sheet).stat().st_size > 1000


def test_pictures_of_other_folders_are_held_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    other = write_portraits(tmp_path / "held", [64] * 2)
    config = replace(TINY, mix=None, outputs=13, hair=1.0, precision="bf16")
    result, sources = run([folder], tmp_path / "out", config, accelerator="cpu", held_out=[other])
    assert {side: len(part) for side, part in vars(sources.splits["real"]).items()} == {
        "train": 6,
        "valid": 2,
        "test": 2,
    }
    assert len(result["test_faces"]) == 2
    assert load_student(tmp_path / "out" / "student.safetensors", outputs=13).outputs == 13


def test_command(folder: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ohlora.cli import app

    job = ["train", "parsing", "--data", str(folder), "--out", str(tmp_path), "--phases", "64:1", "--no-imagenet"]
    done = CliRunner().invoke(app, [*job, "--portraits", "0", "--balance", "0.2", "--batch-size", "4", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["config"]["balance"] == 0.2
    assert "sources" not in report
    assert (tmp_path / "report.md").is_file()


@pytest.mark.slow
def test_it_learns(folder: Path, tmp_path: Path) -> None:
    config = replace(TINY, phases=((64, 40),), imagenet=True, evaluate_every=20, mix=replace(MIX, portraits=32))
    result, _ = run([folder], tmp_path, config, accelerator="cpu")
    assert result["test"]["iou_skin"] > 0.6
    assert result["test"]["iou_hair"] > 0.5


# --- export, bundle, runtime -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, weights_file: Path) -> Bundle:
    metrics = {"iou": 0.5, "iou_hair": 0.9}
    return parser_bundle(tmp_path_factory.mktemp("bundle") / "b", weights_file, parsing_metrics=metrics)


def test_exported_graph(tmp_path: Path) -> None:
    model = random_parser()
    export_student(model, tmp_path / "parsing.onnx")
    image = PortraitFace(9, 224).read()[0][None]
    engine = open_engine(tmp_path / "parsing.onnx", backend="onnxruntime", threads=1)
    found = engine(image=np.concatenate([image, image[:, :, ::-1]]))["parsing"]
    engine.close()
    assert found.dtype == np.uint8
    assert found.shape == (2, 224, 224)
    logits = reference_logits(model, image)
    clear = np.sort(logits, 1)[:, -1] - np.sort(logits, 1)[:, -2] > 0.05 * np.abs(logits).max()
    assert clear.mean() > 0.3
    assert np.array_equal(found[:1][clear], logits.argmax(1)[clear])


def test_bundle_parses(bundle: Bundle) -> None:
    part = bundle.parsing_part()
    assert part.classes == list(NAMES11)
    assert part.metrics["iou_hair"] == 0.9
    assert part.parity["share_different"] < 0.01  # type: ignore[operator]
    assert "parsing" in bundle.engine_hashes
    assert "parser.safetensors" in bundle.manifest.provenance
    assert bundle.file(part.file).stat().st_size < 8_000_000
    with Renderer(bundle, backend="onnxruntime") as renderer:
        image = PortraitFace(4, 96).read()[0]
        classes = renderer.parse([image, image])
        assert classes.shape == (2, 224, 224)
        assert classes.dtype == np.uint8
        assert np.array_equal(classes[0], classes[1])
        assert renderer.parse(np.ascontiguousarray(image[:, :48])).shape == (1, 224, 112)
        assert renderer.parse([]).shape == (0, 224, 224)
        with pytest.raises(InvalidInputError, match="one aspect"):
            renderer.parse([image, image[:, :48]])


def test_parser_is_taken_from_another_bundle(bundle: Bundle, tmp_path: Path) -> None:
    again = build_bundle(
        tmp_path / "b", generator=None, kind="", hair="demo", directions=None, name="again", license="none",
        provenance="test", parsing=str(bundle.path),
    )  # fmt: skip
    assert again.parsing_part() == bundle.parsing_part()
    with pytest.raises(BundleError, match="--parsing"):
        Bundle.open("demo").parsing_part()


def test_one_network_finds_hair_and_parses_thirteen_classes(tmp_path: Path) -> None:
    model = random_parser(13)
    weights = tmp_path / "face.safetensors"
    save_student(weights, model.state_dict(), model.encoder_name)
    made = build_bundle(
        tmp_path / "b", generator=None, kind="", hair=str(weights), directions=None, name="face", license="none",
        provenance="test", parsing=str(weights),
    )  # fmt: skip
    assert made.parsing_part().classes == list(NAMES13)
    assert "13 classes" in made.hair_part().architecture
    images = [PortraitFace(seed, 224).read()[0] for seed in (4, 5)]
    with Renderer(made, backend="onnxruntime") as renderer:
        hair, classes = renderer.hair(images), renderer.parse(images)
    planes = torch.from_numpy(np.stack([to_tensor_layout(image) for image in images]))
    with torch.no_grad():
        wanted = torch.softmax(model.logits(planes), 1).numpy()
    assert np.abs(hair - wanted[:, 10]).max() < 0.05
    assert (classes == wanted.argmax(1)).mean() > 0.99
    assert (hair[classes == 10] >= 1 / 13).all()
    folded = documented_classes(np.arange(13, dtype=np.uint8))
    assert folded.tolist() == [*range(11), 1, 0]


def test_engine_that_gives_other_classes_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """At reduced precision the engines' own gate is about grey levels; for class ids the share counts."""
    from ohlora import bundle as module

    class Half:
        backend, precision, closed = "openvino", "bf16", False
        selftest = {"probe": {"parsing": {"share": 0.05, "psnr_db": 45.0}}}  # noqa: RUF012 - a fake

        def close(self) -> None:
            self.closed = True

    half = Half()
    monkeypatch.setattr(module.Bundle, "_engine", lambda *arguments: half)
    with pytest.raises(EngineError, match=r"5\.0% of the probe's pixels"):
        bundle.parsing_engine(precision="bf16")
    assert half.closed


def test_probe_is_decided_clearly(bundle: Bundle, tmp_path: Path) -> None:
    probe = load_probe(bundle.file(bundle.parsing_part().probe), "parsing")
    assert probe.inputs["image"].shape == (1, 224, 224, 3)
    logits = np.zeros((2, 3, 2, 2), np.float32)
    logits[0, 0], logits[1, 2] = 1.0, 4.0
    logits[1, 1, 0, 0] = 3.5
    assert smallest_margin(logits).tolist() == [1.0, 0.5]
    wrong = Probe(probe.inputs, {"parsing": probe.outputs["parsing"] ^ 1})
    save_probe(tmp_path / "p.safetensors", parsing=wrong)
    with pytest.raises(EngineError, match="not the probe's"):
        open_engine(bundle.file(bundle.parsing_part().file), backend="onnxruntime", probe=tmp_path / "p.safetensors")


def test_build_command(weights_file: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ohlora.cli import app

    (tmp_path / "report.json").write_text(json.dumps({"test": {"iou": 0.7}}))
    job = ["bundle", "build", "--out", str(tmp_path / "b"), "--parsing", str(weights_file)]
    done = CliRunner().invoke(app, [*job, "--parsing-metrics", str(tmp_path / "report.json")])
    assert done.exit_code == 0, done.output
    assert Bundle.open(tmp_path / "b").parsing_part().metrics == {"iou": 0.7}
    shown = CliRunner().invoke(app, ["bundle", "info", str(tmp_path / "b"), "--json"])
    assert json.loads(shown.stdout)["parsing"]["classes"][10] == "hair"
