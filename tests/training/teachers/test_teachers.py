"""Teachers behind one interface: class tables, the 19 -> 11 mapping, labels of both parsers."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.base.types import Rgb
from ohlora.errors import CheckpointError, ImageError, InvalidInputError
from ohlora.training.data.parsing_classes import (
    COLORS,
    HAIR,
    LEFT_BROW,
    LEFT_EYE,
    NAMES11,
    NAMES13,
    NAMES19,
    NOSE,
    RIGHT_BROW,
    RIGHT_EYE,
    EyePoints,
    eyes_inside,
    map_19_to_11,
    visualize,
)
from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.teachers.bisenet import BiSeNetTeacher
from ohlora.training.teachers.facexformer import FaceXFormerTeacher
from ohlora.training.teachers.protocol import Teacher, normalized
from ohlora.training.teachers.registry import load_teacher

BROW_A, BROW_B, EYE_A, EYE_B, NOSE19, HAIR19 = 2, 3, 4, 5, 10, 17


def read(path: Path) -> NDArray[np.uint8]:
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert array is not None, path
    return array


# --- classes ---------------------------------------------------------------------------------------------------------


def test_class_tables() -> None:
    assert len(set(NAMES13)) == len(COLORS) == len({tuple(color) for color in COLORS.tolist()}) == 13
    assert NAMES13[:11] == NAMES11
    assert len(set(NAMES19)) == 19
    assert NAMES11[HAIR] == "hair" == NAMES19[HAIR19]
    assert COLORS[HAIR].tolist() == [255, 0, 102]


def test_mapping_reproduces_the_reference_maps(shared: Path) -> None:
    """With the detector's eye points, and from the map alone: all 60 pictures, every pixel."""
    faces = shared / "data" / "faces"
    with (faces / "mtcnn.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    for row in rows:
        parsing19, parsing11 = (read(faces / kind / f"{row['name']}.png") for kind in ("parsing19", "parsing11"))
        left, right = ((float(row[f"eye_{side}_x"]), float(row[f"eye_{side}_y"])) for side in ("imgleft", "imgright"))
        assert np.array_equal(map_19_to_11(parsing19, (left, right)), parsing11), row["name"]
        assert np.array_equal(map_19_to_11(parsing19), parsing11), row["name"]


points = st.tuples(st.floats(0, 31), st.floats(0, 31))


@given(points, points, st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_bisector(left: tuple[float, float], right: tuple[float, float], seed: int) -> None:
    parsing = np.random.default_rng(seed).integers(0, 19, (32, 32)).astype(np.uint8)
    mapped = map_19_to_11(parsing, (left, right))
    divided = np.isin(parsing, (BROW_A, BROW_B, EYE_A, EYE_B))
    assert np.isin(mapped[divided], (LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE)).all()
    assert not np.isin(mapped[~divided], (LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE)).any()
    # Whoever is clearly nearer to one eye point belongs to it.
    rows, columns = np.mgrid[:32, :32]
    to_left, to_right = (np.hypot(columns - x, rows - y) for x, y in (left, right))
    assert not np.isin(mapped[to_left < to_right - 1e-6], (RIGHT_BROW, RIGHT_EYE)).any()
    assert not np.isin(mapped[to_right < to_left - 1e-6], (LEFT_BROW, LEFT_EYE)).any()


def drawn(*boxes: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A 40x40 map with 4x4 boxes (class, row, column)."""
    parsing = np.zeros((40, 40), np.uint8)
    for number, row, column in boxes:
        parsing[row : row + 4, column : column + 4] = number
    return parsing


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        # both eyes are of one class, as this parser likes: their middles divide
        ([(EYE_A, 10, 4), (EYE_A, 10, 30), (BROW_A, 4, 24)], [LEFT_EYE, RIGHT_EYE, RIGHT_BROW]),
        # no eyes behind sunglasses: the brows divide
        ([(BROW_B, 4, 4), (BROW_B, 4, 12), (NOSE19, 20, 30)], [LEFT_BROW, RIGHT_BROW, NOSE]),
        # a profile has one of each: the nose divides
        ([(EYE_B, 10, 20), (BROW_B, 4, 20), (NOSE19, 20, 30)], [LEFT_EYE, LEFT_BROW, NOSE]),
        # two parts of one eye, one above the other, do not
        ([(EYE_B, 10, 30), (EYE_B, 18, 30), (NOSE19, 20, 10)], [RIGHT_EYE, RIGHT_EYE, NOSE]),
        # nothing but an eye: the middle of the picture divides
        ([(EYE_A, 10, 30)], [RIGHT_EYE]),
    ],
)
def test_without_a_detection(boxes: list[tuple[int, int, int]], expected: list[int]) -> None:
    mapped = map_19_to_11(drawn(*boxes))
    assert [int(mapped[row, column]) for _, row, column in boxes] == expected


def test_foreign_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="class 19"):
        map_19_to_11(np.full((2, 2), 19, np.uint8))


def test_eyes_inside_a_cutout() -> None:
    landmarks = np.array([[110, 60], [150, 70], [0, 0], [0, 0], [0, 0]])
    assert eyes_inside(landmarks, (100, 50), (0.5, 2)) == ((5, 20), (25, 40))


def test_overlay_is_half_and_half() -> None:
    image = np.full((1, 2, 3), 100, np.uint8)
    assert visualize(image, np.array([[0, 1]], np.uint8)).tolist() == [[[50, 50, 50], [50, 126, 178]]]  # half to even


# --- teachers --------------------------------------------------------------------------------------------------------


class Painted(BiSeNet):
    """Sees what is painted: hair where red, an eye (always of one class) where green."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def parse(self, image: Tensor) -> Tensor:
        logits = torch.zeros(len(image), 19, *image.shape[-2:])
        logits[:, HAIR19] = 5 * (image[:, 0] > 0)
        logits[:, EYE_B] = 5 * (image[:, 1] > 0)
        return logits


def painted(height: int = 100, width: int = 200) -> Rgb:
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 4, :, 0] = 255
    for x in (width // 4, 3 * width // 4):
        image[height // 2 : height // 2 + 10, x - 10 : x + 10, 1] = 255
    return image


def test_bisenet_labels() -> None:
    asked: list[Rgb] = []

    def find_eyes(image: Rgb) -> EyePoints | None:
        asked.append(image)
        return None

    teacher: Teacher = BiSeNetTeacher(Painted(), find_eyes=find_eyes)
    images = [painted(), painted(50, 50)]
    labels = teacher.labels(images)
    assert len(asked) == 2
    assert labels.parsing.shape == labels.hair.shape == (2, 224, 224)
    assert labels.parsing.dtype == np.uint8
    assert labels.hair.dtype == np.float32
    for parsing, hair in zip(labels.parsing, labels.hair, strict=True):
        assert np.array_equal(parsing[:50] == HAIR, np.ones((50, 224), bool))
        assert hair[:50].min() > 0.99
        assert hair[60:].max() < 0.1
        assert parsing[122, 56] == LEFT_EYE
        assert parsing[122, 168] == RIGHT_EYE
    # Given points win, in pixels of the picture: here both eyes lie to the right of the bisector.
    given_points = teacher.labels(images[:1], [((0.0, 50.0), (20.0, 50.0))])
    assert len(asked) == 2
    assert given_points.parsing[0, 122, 56] == given_points.parsing[0, 122, 168] == RIGHT_EYE


def test_bisenet_maps() -> None:
    teacher = BiSeNetTeacher(Painted())
    images = [painted(), painted(64, 64)]
    assert teacher.parse(images).shape == (2, 19, 512, 512)
    probabilities = teacher.probabilities(images)
    assert probabilities.shape == (2, len(teacher.classes), 256, 256)
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(teacher.hair(images[1]), probabilities[1, teacher.classes.index("hair")])


class Graph(nn.Module):
    """The class of a pixel is its red value."""

    def forward(self, image: Tensor) -> Tensor:
        value = (image[:, 0] * 0.229 + 0.485) * 255
        return -(value[:, None] - torch.arange(11.0)[:, None, None]).abs() * 3


def test_facexformer_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ohlora.training.teachers.facexformer.ParseGraph", lambda model: Graph())
    teacher: Teacher = FaceXFormerTeacher(nn.Module())  # type: ignore[arg-type]
    image = np.zeros((224, 224, 3), np.uint8)
    image[..., 0] = np.arange(224)[:, None] % 11
    images = [image, np.full((31, 77, 3), HAIR, np.uint8)]
    labels = teacher.labels(images)
    assert np.array_equal(labels.parsing[0], image[..., 0])
    assert (labels.parsing[1] == HAIR).all()
    assert labels.hair[1] == pytest.approx(teacher.hair(images[1]))
    assert teacher.parse(images).shape == teacher.probabilities(images).shape == (2, 11, 224, 224)
    assert teacher.classes == NAMES11


def test_what_is_no_picture_is_refused() -> None:
    teacher = BiSeNetTeacher(Painted())
    for bad in ([np.zeros((4, 4), np.uint8)], [np.zeros((4, 4, 3), np.float32)], np.zeros((4, 4, 3), np.uint8), []):
        with pytest.raises(ImageError):
            teacher.parse(bad)  # type: ignore[arg-type]


def test_normalized() -> None:
    white = np.full((1, 1, 3), 255, np.uint8)
    assert normalized(white)[0, 0] == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert normalized(white).dtype == np.float32


def test_load_teacher_refuses(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth is none of facexformer, bisenet-19"):
        load_teacher(tmp_path / "x.pth")
    with pytest.raises(InvalidInputError, match="unknown teacher 'sam'"):
        load_teacher(tmp_path / "x.pth", "sam")
    with pytest.raises(InvalidInputError, match="unknown device 'tpu'"):
        load_teacher(tmp_path / "x.pth", device="tpu")
