"""Face detection: figures of facenet-pytorch, golden pictures, the compiled networks, crops."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ohlora.errors import EngineError, ImageError, InvalidInputError
from ohlora.photos import face_cascade
from ohlora.photos.face_cascade import AreaSampler, Detections, Floats, suppress
from ohlora.photos.face_detector import FaceDetector, OnnxNetworks, detector_folder, smallest_face
from ohlora.scores.sources import crop_box, squeezed

PIXELS, PROBABILITY = 0.05, 1e-3
POINTS = ("eye_imgleft", "eye_imgright", "nose", "mouth_imgleft", "mouth_imgright")
FEW = 5


@pytest.fixture(scope="module")
def networks() -> OnnxNetworks:
    return OnnxNetworks()


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((shared / "data" / "faces" / "mtcnn.csv").open()))


def portrait(shared: Path, name: str) -> Image.Image:
    return Image.open(shared / "data" / "faces" / f"{name}.jpg").convert("RGB")


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image)


def check_row(row: dict[str, str], found: Detections) -> None:
    assert len(found) == int(row["n_faces"]), row["name"]
    box = [float(row[name]) for name in ("x1", "y1", "x2", "y2")]
    points = [[float(row[f"{name}_{axis}"]) for axis in "xy"] for name in POINTS]
    assert np.abs(found.boxes[0] - box).max() < PIXELS, row["name"]
    assert np.abs(found.landmarks[0] - points).max() < PIXELS, row["name"]
    assert abs(found.probabilities[0] - float(row["prob"])) < PROBABILITY, row["name"]


def golden_pictures(shared: Path) -> dict[str, NDArray[np.uint8]]:
    """The pictures that mtcnn_extra.json describes."""
    pair, mixed = Image.new("RGB", (512, 256)), Image.new("RGB", (400, 256))
    first, second = portrait(shared, "ftv1_000001"), portrait(shared, "ftv4_000008")
    pair.paste(first, (0, 0))
    pair.paste(second, (256, 0))
    mixed.paste(portrait(shared, "ftv1_000009").resize((144, 144), Image.Resampling.BILINEAR), (0, 50))
    mixed.paste(second, (144, 0))
    pictures = {
        "black": Image.new("RGB", (256, 256)),
        "pair": pair,
        "small_then_large": mixed,
        "upscaled_512": first.resize((512, 512), Image.Resampling.BICUBIC),
        "tight_crop": first.crop((60, 60, 200, 240)),
        "upside_down": first.rotate(180),
    }
    return {name: pixels(image) for name, image in pictures.items()}


def check_golden(name: str, wanted: dict[str, Any], found: Detections) -> None:
    if wanted["boxes"] is None:
        assert not len(found), name
        return
    assert np.abs(found.boxes - wanted["boxes"]).max() < PIXELS, name
    assert np.abs(found.landmarks - wanted["landmarks"]).max() < PIXELS, name
    assert np.abs(found.probabilities - wanted["probs"]).max() < PROBABILITY, name


# --- the compiled detector -------------------------------------------------------------------------------------------


def test_reference_faces(shared: Path, rows: list[dict[str, str]], networks: OnnxNetworks) -> None:
    for row in rows[:: len(rows) // FEW]:
        check_row(row, face_cascade.detect(pixels(portrait(shared, row["name"])), networks))


@pytest.mark.slow
def test_all_reference_faces(shared: Path, rows: list[dict[str, str]], networks: OnnxNetworks) -> None:
    for row in rows:
        check_row(row, face_cascade.detect(pixels(portrait(shared, row["name"])), networks))


def test_golden_pictures(shared: Path, networks: OnnxNetworks) -> None:
    golden = json.loads((shared / "golden" / "segmentation" / "mtcnn_extra.json").read_text())
    pictures = golden_pictures(shared)
    assert set(golden) == set(pictures)
    for name, wanted in golden.items():
        assert list(pictures[name].shape[1::-1]) == wanted["size_wh"]
        check_golden(name, wanted, face_cascade.detect(pictures[name], networks))


def test_large_picture_is_searched_in_a_small_copy(shared: Path) -> None:
    scene = Image.new("RGB", (2400, 1800), (120, 125, 130))
    scene.paste(portrait(shared, "ftv1_000001").resize((900, 900), Image.Resampling.BICUBIC), (1300, 700))
    scene.paste(portrait(shared, "ftv4_000008").resize((300, 300), Image.Resampling.BICUBIC), (200, 100))
    found = FaceDetector().detect(pixels(scene))
    assert len(found) == 2
    small = FaceDetector().detect(pixels(portrait(shared, "ftv1_000001")))
    wanted = small.landmarks[0] * (900 / 256) + np.array([1300, 700])
    assert np.abs(found.landmarks[0] - wanted).max() < 0.02 * 900
    assert smallest_face(1800, 2400) == 36
    assert len(FaceDetector(min_face=300).detect(pixels(scene))) == 1, "the smaller face is below the minimum"


def test_follow_finds_a_moved_face(shared: Path) -> None:
    detector = FaceDetector()
    face = portrait(shared, "ftv1_000001")
    first, second = (Image.new("RGB", (500, 400), (90, 100, 110)) for _ in range(2))
    first.paste(face, (100, 60))
    second.paste(face, (118, 52))
    before = detector.detect(pixels(first))
    after = detector.follow(pixels(second), before)
    assert len(after) == 1
    assert np.abs(after.landmarks[0] - before.landmarks[0] - np.array([18, -8])).max() < 3
    assert len(detector.follow(np.full((400, 500, 3), 90, np.uint8), before)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (11, 300), (12, 12), (40, 13)])
def test_pictures_too_small_for_a_face(shape: tuple[int, int]) -> None:
    assert len(FaceDetector().detect(np.full((*shape, 3), 200, np.uint8))) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"min_face": 5.0}, "smallest face"), ({"min_face": float("nan")}, "smallest"), ({"confidence": 0.1}, "confid")],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        FaceDetector(**options)


def test_damaged_and_missing_networks(tmp_path: Path) -> None:
    folder = tmp_path / "detector"
    shutil.copytree(detector_folder(), folder)
    data = bytearray((folder / "output.onnx").read_bytes())
    data[1000] ^= 1
    (folder / "output.onnx").write_bytes(data)
    with pytest.raises(EngineError, match=r"output\.onnx"):
        OnnxNetworks(folder)
    (folder / "output.onnx").unlink()
    with pytest.raises(EngineError, match=r"output\.onnx"):
        OnnxNetworks(folder)
    (folder / "detector.json").write_text("{}")
    with pytest.raises(EngineError, match=r"detector\.json"):
        OnnxNetworks(folder)


def test_shipped_files_are_described() -> None:
    record = json.loads((detector_folder() / "detector.json").read_text())
    for name, entry in record["files"].items():
        data = (detector_folder() / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size"], entry["sha256"])
    assert record["license"] == "MIT"
    assert "Permission is hereby granted" in (detector_folder() / "LICENSE").read_text()


# --- the cascade's parts ---------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    to=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    seed=st.integers(0, 99),
)
def test_area_sampling_is_adaptive_average_pooling(size: tuple[int, int], to: tuple[int, int], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    sampled = AreaSampler(image).sample(0, size[0], 0, size[1], *to)
    for row in {0, to[0] // 2, to[0] - 1}:
        for column in {0, to[1] // 2, to[1] - 1}:
            top, bottom = row * size[0] // to[0], -(-(row + 1) * size[0] // to[0])
            left, right = column * size[1] // to[1], -(-(column + 1) * size[1] // to[1])
            mean = image[top:bottom, left:right].reshape(-1, 3).mean(0)
            assert sampled[row, column] == pytest.approx(mean, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), smaller=st.booleans())
def test_suppression_keeps_the_best_and_drops_what_overlaps(seed: int, smaller: bool) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (30, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 40, (30, 2))], 1).astype(np.float32)
    scores = rng.random(30).astype(np.float32)
    kept = suppress(boxes, scores, 0.4, of_smaller=smaller)
    assert kept[0] == scores.argmax()
    assert (np.diff(scores[kept]) <= 0).all()

    def share(a: Floats, b: Floats) -> float:
        extra = float(smaller)
        common = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + extra, 0))
        areas = [np.prod(box[2:] - box[:2] + extra) for box in (a, b)]
        return float(common / (min(areas) if smaller else sum(areas) - common))

    for index in range(30):
        better = [k for k in kept if scores[k] > scores[index]]
        overlaps = any(share(boxes[index], boxes[k]) > 0.4 + 1e-5 for k in better)
        clear = all(share(boxes[index], boxes[k]) < 0.4 - 1e-5 for k in better)
        assert (index in kept) == clear or not (overlaps or clear)


class Scripted:
    """Networks that say a crop's mean brightness is its score."""

    def proposal(self, level: Floats) -> tuple[Floats, Floats]:
        raise AssertionError("not asked for")

    def refinement(self, crops: Floats) -> tuple[Floats, Floats]:
        return crops.mean((1, 2, 3)) / 255, np.zeros((len(crops), 4), np.float32)

    def output(self, crops: Floats) -> tuple[Floats, Floats, Floats]:
        return (*self.refinement(crops), np.full((len(crops), 10), 0.5, np.float32))


def test_a_box_outside_the_picture_does_not_shift_the_others() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[60:90, 60:90] = 255
    outside, dark, bright = [150, 150, 180, 180], [5, 5, 35, 35], [61, 61, 91, 91]
    boxes = np.array([outside, dark, bright], np.float32)
    kept = face_cascade.refine(AreaSampler(image), Scripted(), boxes, 0.7)
    assert kept.tolist() == [[61, 61, 91, 91]]
    found = face_cascade.finish(AreaSampler(image), Scripted(), boxes, 0.7)
    assert len(found) == 1
    # 30 wide counted with both ends, half of it, from x1 - 1.
    assert found.landmarks[0].tolist() == [[75.5, 75.5]] * 5


# --- facenet-pytorch -------------------------------------------------------------------------------------------------


def test_crop_box_rule(golden: Path) -> None:
    with (golden / "segmentation" / "crop_boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    for row in rows:
        crop = crop_box(np.array([row[name] for name in ("x1", "y1", "x2", "y2")], np.float64), 256, 256, row["name"])
        wanted = [int(row[name]) for name in ("crop_x0", "crop_y0", "crop_x1", "crop_y1")]
        assert np.abs(np.subtract(crop, wanted)).max() <= 1, row["name"]
    assert crop_box(np.array([-20.0, 10, 30, 50]), 40, 45, "x") == (0, 0, 40, 45)
    with pytest.raises(ImageError, match="found in x lies outside the picture"):
        crop_box(np.array([100.0, 100, 120, 120]), 40, 45, "x")


def test_the_two_views_of_a_teacher(shared: Path, networks: OnnxNetworks) -> None:
    picture = portrait(shared, "ftv1_000001")
    image = pixels(picture)
    found = face_cascade.detect(image, networks)
    face = squeezed(image, crop_box(found.boxes[0], 256, 256, "x"))
    wanted = picture.crop((33, 4, 222, 256)).resize((224, 224), Image.Resampling.BICUBIC)
    assert np.array_equal(face, pixels(wanted))
    assert np.array_equal(squeezed(image), pixels(picture.resize((224, 224), Image.Resampling.BICUBIC)))


@pytest.mark.slow
def test_pytorch_networks_and_upstream_cascade(
    shared: Path, rows: list[dict[str, str]], networks: OnnxNetworks
) -> None:
    """Ours on PyTorch, ours on ONNX Runtime and facenet-pytorch's own give the same faces."""
    pytest.importorskip("facenet_pytorch")
    from ohlora.training.teachers.mtcnn import detect

    golden = json.loads((shared / "golden" / "segmentation" / "mtcnn_extra.json").read_text())
    for name, image in golden_pictures(shared).items():
        check_golden(name, golden[name], detect(image))
        check_golden(name, golden[name], detect(image, compat=True))
    for row in rows[:: len(rows) // FEW]:
        check_row(row, detect(pixels(portrait(shared, row["name"]))))


@pytest.mark.slow
def test_export_gives_the_shipped_files(tmp_path: Path) -> None:
    pytest.importorskip("facenet_pytorch")
    from ohlora.export.graphs.mtcnn import export

    record = export(tmp_path)
    shipped = json.loads((detector_folder() / "detector.json").read_text())
    assert record["files"] == shipped["files"]
