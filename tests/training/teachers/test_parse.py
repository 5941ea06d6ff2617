"""Stage `parse`: the documented files, numbers, resume, pictures that are left out."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from typer.testing import CliRunner

from ohlora.base.types import Rgb
from ohlora.cli import app
from ohlora.errors import InvalidInputError
from ohlora.io.images import read_image
from ohlora.photos.face_cascade import Detections
from ohlora.training.data.hair_faces import find_faces
from ohlora.training.data.parsing_classes import COLORS, EyePoints
from ohlora.training.teachers.parse import (
    FULL_FRAME,
    INDEX,
    ParseResult,
    ParseSettings,
    documented_face,
    hair_label,
    number_sources,
    parse_pictures,
)
from ohlora.training.teachers.protocol import Labels
from tests.support.versions import needs_pillow_13

KINDS = ("face", "parsing", "parsing_visualization", "parsing_hair_label")


class Half:
    """Says: hair in the upper half, its probability the mean red of the picture; skin below. Keeps what it is asked."""

    name, weights, classes = "half", "0" * 64, ("skin", "hair")

    def __init__(self) -> None:
        self.batches: list[list[Rgb]] = []
        self.eyes: list[Sequence[EyePoints | None] | None] = []

    def labels(self, images: Sequence[Rgb], eyes: Sequence[EyePoints | None] | None = None) -> Labels:
        self.batches.append(list(images))
        self.eyes.append(eyes)
        parsing = np.ones((len(images), 224, 224), np.uint8)
        parsing[:, :112] = 10
        hair = np.zeros((len(images), 224, 224), np.float32)
        for one, image in zip(hair, images, strict=True):
            one[:112] = image[..., 0].mean() / 255
        return Labels(parsing, hair)

    @property
    def seen(self) -> int:
        return sum(map(len, self.batches))


def one_face(image: Rgb) -> Detections:
    """A face in the middle of every picture that is not black."""
    count = int(image.any())
    height, width = image.shape[:2]
    box = np.array([[width / 4, height / 4, 3 * width / 4, 3 * height / 4]], np.float32)[:count]
    landmarks = np.full((count, 5, 2), (width / 2, height / 2), np.float32)
    landmarks[:, 0, 0] -= 4
    return Detections(box, np.ones(count, np.float32), landmarks)


def write(folder: Path, name: str, red: int, size: tuple[int, int] = (40, 60)) -> Path:
    folder.mkdir(exist_ok=True)
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0] = red
    PilImage.fromarray(image).save(folder / name)
    return folder / name


def run(sources: Sequence[Path], out: Path, teacher: Half, variant: str = "crop", **rest: Any) -> ParseResult:
    return parse_pictures(sources, out, teacher, ParseSettings(variant), find_faces=one_face, **rest)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / INDEX).read_text().splitlines()]


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


# --- files -----------------------------------------------------------------------------------------------------------


def test_documented_bytes(golden: Path) -> None:
    """What upstream stores for each byte of a face picture."""
    with np.load(golden / "properties" / "stored_face_values.npz") as stored:
        values = stored["values"]
    assert np.array_equal(documented_face(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2))[0].T, values)


@needs_pillow_13
def test_documented_face_pictures(shared: Path) -> None:
    """Variant A's face pictures of the reference data, byte for byte, from the reference crops."""
    faces = shared / "data" / "faces"
    lower = total = 0
    with (faces / "mtcnn.csv").open() as file:
        for row in csv.DictReader(file):
            image = read_image(faces / f"{row['name']}.jpg")
            x0, y0, x1, y1 = (int(row[f"crop_{side}"]) for side in ("x0", "y0", "x1", "y1"))
            crop = PilImage.fromarray(image[y0:y1, x0:x1])
            exact = np.asarray(crop.resize((224, 224), PilImage.Resampling.BICUBIC))
            made = documented_face(exact)
            golden = read_image(shared / "golden" / "properties" / "inputs" / f"{row['name']}_img_crop.png")
            assert np.array_equal(made, golden), row["name"]
            lower += int((exact - made).sum())
            total += made.size
    assert 0.15 < lower / total < 0.25


def test_hair_labels_are_rounded_half_to_even() -> None:
    halves = np.array([0.5, 1.5, 2.5, 254.5], np.float32) / np.float32(255)
    assert (halves * np.float32(255)).tolist() == [0.5, 1.5, 2.5, 254.5]
    assert hair_label(halves).tolist() == [0, 2, 2, 254]
    assert hair_label(np.array([-0.1, 1.1, 1.0], np.float32)).tolist() == [0, 255, 255]


def test_crop_variant(tmp_path: Path) -> None:
    source, teacher = write(tmp_path / "in", "0007.png", 200), Half()
    result = run([source], tmp_path / "out", teacher)
    assert (result.pictures, result.parsed, result.failures) == (1, 1, [])
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir() if path.is_file()} == {f"{kind}_000007.png" for kind in KINDS} | {INDEX}
    # A quarter of the box is added on each side of it: 40x60 pictures are cut at 15 - 7.5 and 10 - 5.
    assert teacher.batches[0][0].shape == (30, 45, 3)
    assert teacher.eyes == [[((30 - 4 - 7, 20 - 5), (30 - 7, 20 - 5))]]
    face = read_image(out / "face_000007.png")
    parsing = cv2.imread(str(out / "parsing_000007.png"), cv2.IMREAD_UNCHANGED)
    hair = cv2.imread(str(out / "parsing_hair_label_000007.png"), cv2.IMREAD_UNCHANGED)
    assert face.shape == (224, 224, 3)
    assert face[..., 0].min() >= 199
    assert parsing is not None
    assert hair is not None
    assert parsing.shape == hair.shape == (224, 224)
    assert parsing[0, 0] == 10
    assert parsing[-1, 0] == 1
    assert hair[0, 0] == 200
    assert hair[-1, 0] == 0
    overlay = read_image(out / "parsing_visualization_000007.png")
    assert np.array_equal(overlay, np.rint(0.5 * face + 0.5 * COLORS[parsing]).astype(np.uint8))
    (row,) = rows(out)
    assert {key: row[key] for key in ("number", "source", "status", "variant", "faces", "crop", "teacher")} == {
        "number": 7,
        "source": str(source),
        "status": "parsed",
        "variant": "crop",
        "faces": 1,
        "crop": [7, 5, 52, 35],
        "teacher": "half",
    }
    assert row["files"] == {name: (out / name).stat().st_size for name in row["files"]}


def test_full_frame_variant_is_a_data_folder(tmp_path: Path) -> None:
    sources = [write(tmp_path / "in", f"{i}.png", 50 * i) for i in range(4)]
    teacher = Half()
    run(sources, tmp_path / "out", teacher, FULL_FRAME, batch=3)
    assert [len(batch) for batch in teacher.batches] == [3, 1]
    assert teacher.batches[0][0].shape == (40, 60, 3)
    assert teacher.eyes == [None, None]  # a teacher that needs them looks itself
    faces = find_faces([tmp_path / "out"])
    assert [face.name for face in faces] == [f"face_{i:06d}" for i in range(4)]
    for i, face in enumerate(faces):
        image, label, _ = face.read()
        assert image.shape == (224, 224, 3)
        assert label[0, 0] == 50 * i
        assert label[-1, 0] == 0


def test_exact_face(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    PilImage.fromarray(image).save(tmp_path / "1.png")
    parse_pictures([tmp_path / "1.png"], tmp_path / "a", Half(), ParseSettings(FULL_FRAME, exact_face=True))
    assert np.array_equal(read_image(tmp_path / "a" / "face_000001.png"), image)
    parse_pictures([tmp_path / "1.png"], tmp_path / "b", Half(), ParseSettings(FULL_FRAME))
    assert np.array_equal(read_image(tmp_path / "b" / "face_000001.png"), documented_face(image))


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_names_that_are_no_numbers_fill_the_gaps() -> None:
    sources = [Path(name) for name in ("b.png", "1.png", "a1.png", "0003.jpg", "-2.png")]
    numbers = {source.name: number for number, source in number_sources(sources).items()}
    assert numbers == {"b.png": 0, "1.png": 1, "a1.png": 2, "0003.jpg": 3, "-2.png": 4}


@given(st.lists(st.from_regex(r"[0-9]{1,4}|[a-z]{1,3}", fullmatch=True), unique=True, max_size=12), st.data())
@settings(max_examples=50, deadline=None)
def test_numbers_stay_when_pictures_join(stems: list[str], data: st.DataObject) -> None:
    numbers = [int(stem) for stem in stems if stem.isdigit()]
    if len(set(numbers)) < len(numbers):
        with pytest.raises(InvalidInputError, match="both be number"):
            number_sources([Path(stem) for stem in stems])
        return
    every = [Path(stem) for stem in stems]
    first = [path for path in every if data.draw(st.booleans())]
    known = {number: {"source": str(source)} for number, source in number_sources(first).items()}
    # A later name that is a number may want one that is taken: that is refused when hashes are compared.
    later = [path for path in every if path in first or not path.stem.isdigit()]
    again = {str(source): number for number, source in number_sources(later, known).items()}
    assert len(set(again.values())) == len(again) == len(later)
    for number, row in known.items():
        assert again[row["source"]] == number


def test_two_pictures_of_one_number(tmp_path: Path) -> None:
    sources = [write(tmp_path / "in", "1.png", 9), write(tmp_path / "in", "001.png", 9)]
    with pytest.raises(InvalidInputError, match=r"1\.png and .*001\.png would both be number 1"):
        run(sources, tmp_path / "out", Half())


def test_another_picture_of_a_taken_number(tmp_path: Path) -> None:
    first, same = write(tmp_path / "a", "1.png", 9), write(tmp_path / "b", "1.png", 9)
    run([first], tmp_path / "out", Half())
    assert run([same], tmp_path / "out", Half()).already_there == 1  # moved, but the same
    before = content(tmp_path / "out")
    with pytest.raises(InvalidInputError, match=r"number 1 belongs to .*a.1\.png"):
        run([write(tmp_path / "c", "1.png", 10)], tmp_path / "out", Half())
    assert content(tmp_path / "out") == before


# --- resume and failures ---------------------------------------------------------------------------------------------


class Stopping(Half):
    """Is interrupted in its second batch."""

    def labels(self, images: Sequence[Rgb], eyes: Sequence[EyePoints | None] | None = None) -> Labels:
        if self.batches:
            raise KeyboardInterrupt
        return super().labels(images, eyes)


def test_resume_gives_the_same_folder(tmp_path: Path) -> None:
    sources = [write(tmp_path / "in", f"{name}.png", 10 + i) for i, name in enumerate("badc")]
    whole = Half()
    run(sources, tmp_path / "whole", whole, batch=2)
    with pytest.raises(KeyboardInterrupt):
        run(sources, tmp_path / "out", Stopping(), batch=2)
    assert [row["number"] for row in rows(tmp_path / "out")] == [0, 1]
    rest = Half()
    told: list[tuple[int, int]] = []
    run(sources, tmp_path / "out", rest, batch=2, started=lambda pending, done: told.append((pending, done)))
    assert told == [(2, 2)]
    assert rest.seen == 2
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_only_what_is_missing_or_changed_is_made_again(tmp_path: Path) -> None:
    sources = [write(tmp_path / "in", f"{i}.png", 10 + i) for i in range(4)]
    out = tmp_path / "out"
    run(sources, out, Half())
    before = content(out)
    (out / "parsing_000001.png").unlink()
    (out / "face_000002.png").write_bytes(b"torn")
    teacher = Half()
    assert run(sources, out, teacher).already_there == 2
    assert teacher.seen == 2
    assert content(out) == before
    write(tmp_path / "in", "3.png", 99)
    teacher = Half()
    run(sources, out, teacher)
    assert teacher.seen == 1
    assert content(out)["face_000003.png"] != before["face_000003.png"]
    with pytest.raises(InvalidInputError, match="--restart"):
        run(sources, out, Half(), FULL_FRAME)


def test_pictures_that_cannot_be_parsed(tmp_path: Path) -> None:
    good = write(tmp_path / "in", "1.png", 100)
    black = write(tmp_path / "in", "2.png", 0)
    (tmp_path / "in" / "3.png").write_bytes(b"no picture")
    result = run([good, black, tmp_path / "in" / "3.png", tmp_path / "gone" / "4.png"], tmp_path / "out", Half())
    assert (result.pictures, result.parsed) == (4, 1)
    assert [(row["number"], row["status"]) for row in result.failures] == [
        (2, "no face"),
        (3, "unreadable"),
        (4, "unreadable"),
    ]
    assert "2.png" in result.failures[0]["error"]
    assert [row["status"] for row in rows(tmp_path / "out")] == ["parsed", "no face", "unreadable", "unreadable"]
    assert not list((tmp_path / "out").glob("*_000002.png"))
    again = run([good, black], tmp_path / "out", Half())
    assert (again.already_there, len(again.failures)) == (1, 1)


def test_unknown_variant() -> None:
    with pytest.raises(InvalidInputError, match="unknown variant 'half': choose crop or full-frame"):
        ParseSettings("half")


# --- command ---------------------------------------------------------------------------------------------------------


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Half()
    monkeypatch.setattr("ohlora.training.teachers.registry.load_teacher", lambda path, kind, device: teacher)
    write(tmp_path / "in", "5.png", 100)
    (tmp_path / "in" / "6.png").write_bytes(b"no picture")
    (tmp_path / "list.txt").write_text("in/5.png\n\nin/6.png\n")
    job = ["train", "parse", str(tmp_path / "list.txt"), "--teacher", "t.pt", "--variant", "full-frame"]
    job += ["--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*job, "--json"])
    assert done.exit_code == 1
    summary = json.loads(done.stdout)
    assert (summary["pictures"], summary["parsed"], summary["failed"]) == (2, 1, 1)
    assert summary["failures"][0]["number"] == 6
    again = CliRunner().invoke(app, job)
    assert again.exit_code == 1
    assert "resuming: 1 of 2 pictures are there" in again.output
    assert "unreadable: cannot read" in again.output
    assert "1 were there already; 1 left out" in again.output
    (tmp_path / "in" / "6.png").unlink()
    assert CliRunner().invoke(app, [*job[:2], str(tmp_path / "in"), *job[3:]]).exit_code == 0


def test_empty_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n")
    done = CliRunner().invoke(app, ["train", "parse", str(tmp_path / "list.txt"), "--teacher", "t.pt"])
    assert isinstance(done.exception, InvalidInputError)
