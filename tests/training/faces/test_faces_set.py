"""Stage `faces-set`: files, labels that follow the image, rare kinds, resume, shards, photographs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from ohlora.base.types import Rgb
from ohlora.bundle import Bundle
from ohlora.cli import app
from ohlora.cli.train.faces import read_shard
from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.io.images import read_image
from ohlora.training.data.hair_faces import find_faces
from ohlora.training.data.parsing_classes import GLASSES, HAIR, HAT, NAMES19
from ohlora.training.faces.kinds import RARE, figures_of, kinds_of
from ohlora.training.faces.recipe import FacesRecipe
from ohlora.training.faces.sources import SEEDS, BundleFaces, Photographs
from ohlora.training.faces.stage import make_faces
from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.students.parsing.faces import find_parsed_faces
from ohlora.training.teachers.bisenet import _MIRRORED, BiSeNetTeacher

IDS = {name: number for number, name in enumerate(NAMES19)}


class Rule(nn.Module):
    """Hair where red is above the middle; elsewhere brow_a on the left half of the image, brow_b on the right."""

    def parse(self, images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 19, *images.shape[2:])
        logits[:, IDS["hair"]] = 4.0 * (images[:, 0] > 0)
        half = images.shape[3] // 2
        logits[:, IDS["brow_a"], :, :half] = 1.0
        logits[:, IDS["brow_b"], :, half:] = 1.0
        return logits


def ruled_teacher() -> BiSeNetTeacher:
    teacher = BiSeNetTeacher(BiSeNet(), weights="rule")
    teacher.network = Rule().parse  # type: ignore[method-assign]
    return teacher


@pytest.fixture(scope="module")
def demo() -> Iterator[BundleFaces]:
    with BundleFaces(Bundle.open("demo"), FacesRecipe(sizes=(64, 96)), 12) as source:
        yield source


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".ohlora" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_set_is_a_data_folder_and_resumes_to_the_byte(demo: BundleFaces, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    result = make_faces(demo, ruled_teacher(), whole)
    assert (result.faces, result.labeled, result.failures) == (12, 12, [])
    assert len(find_faces([whole])) == len(find_parsed_faces([whole], 13)) == 12

    class Stop(Exception):
        pass

    def stop(done: int, faces: int) -> None:
        if done >= 8:
            raise Stop

    with pytest.raises(Stop):
        make_faces(demo, ruled_teacher(), stopped, advance=stop)
    (stopped / "hair_soft" / "face_000002.png").unlink()
    again = make_faces(demo, ruled_teacher(), stopped)
    assert again.labeled == 5
    assert content(stopped) == content(whole)
    with pytest.raises(InvalidInputError):
        make_faces(demo, ruled_teacher(), whole, precision="bf16")


def test_labels_follow_the_image(demo: BundleFaces, tmp_path: Path) -> None:
    make_faces(demo, ruled_teacher(), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert len({row["view"] for row in rows}) > 1
    for row, face in zip(rows, find_faces([tmp_path]), strict=True):
        image, hair, parsing = face.read()
        assert parsing is not None
        assert image.shape == (row["side"], row["side"], 3)
        red = image[..., 0].astype(float) > 0.485 * 255  # above the middle once normalized
        assert ((hair >= 128) == red).mean() > 0.93, row
        assert ((parsing == IDS["hair"]) == red).mean() > 0.93, row


def test_left_and_right_are_not_mixed_up_by_the_mirror_image() -> None:
    black = np.zeros((512, 512, 3), np.uint8)
    classes = ruled_teacher().best_probabilities([black])[0].argmax(0)
    assert (classes[:, :256] == IDS["brow_a"]).all()
    assert (classes[:, 256:] == IDS["brow_b"]).all()
    exchanged = {(NAMES19[i], NAMES19[j]) for i, j in enumerate(_MIRRORED) if i != j}
    assert exchanged == {(f"{a}_{x}", f"{a}_{y}") for a in ("brow", "eye", "ear") for x, y in ("ab", "ba")}


def test_shards_make_the_faces_of_the_whole_first_round(demo: BundleFaces, tmp_path: Path) -> None:
    make_faces(demo, ruled_teacher(), tmp_path / "whole")
    for part in (1, 2):
        make_faces(demo, ruled_teacher(), tmp_path / str(part), shard=(part, 2))
    whole = content(tmp_path / "whole")
    names = [{name for name in content(tmp_path / str(part)) if "/" in name or "face_" in name} for part in (1, 2)]
    assert not names[0] & names[1]
    assert names[0] | names[1] == {name for name in whole if "/" in name or "face_" in name}
    first = demo.rounds({})[0]
    for part in (1, 2):
        for number in first[part - 1 :: 2]:
            name = f"face_{number:06d}.jpg"
            assert (tmp_path / str(part) / name).read_bytes() == whole[name]


def test_faces_of_the_second_round_lie_near_one_of_a_rare_kind(demo: BundleFaces) -> None:
    rows: dict[int, Any] = {number: {"kinds": ["hat"] if number == 3 else []} for number in demo.rounds({})[0]}
    with BundleFaces(demo.bundle, demo.recipe, 200) as source:
        rows |= {number: {"kinds": ["long hair"]} for number in range(20, 130)}
        plans = [source._plan(number, rows) for number in source.rounds({})[1]]
    low, high = source.recipe.toward
    assert {plan["near"] for plan in plans} == {"hat"}  # long hair is frequent
    assert {plan["seeds"][0] for plan in plans} == {SEEDS["train"][3]}
    assert all(low <= plan["toward"] <= high for plan in plans)
    assert len({plan["seeds"][1] for plan in plans}) > 30


def test_what_is_measured_is_not_chosen(demo: BundleFaces) -> None:
    with BundleFaces(demo.bundle, FacesRecipe(part="test"), 10) as source:
        first, second = source.rounds({})
        assert (len(first), len(second)) == (10, 0)
        assert [source._plan(number, {})["seeds"] for number in first] == [[seed] for seed in SEEDS["test"][:10]]


def test_kinds_of_faces() -> None:
    image = np.full((64, 64, 3), 180, np.uint8)
    parsing = np.full((64, 64), IDS["skin"], np.uint8)
    parsing[:20] = IDS["hair"]
    assert kinds_of(figures_of(image, parsing)) == ["gray hair", "light hair"]
    parsing[:20] = IDS["hat"]
    assert "hat" in kinds_of(figures_of(image, parsing))
    parsing[:20] = IDS["background"]
    assert "bald" in kinds_of(figures_of(image, parsing))
    parsing[24:30, 8:56] = IDS["glasses"]
    parsing[45:48, 24:40] = IDS["upper_lip"]
    image[45:] = 60
    found = figures_of(image, parsing)
    assert set(kinds_of(found)) >= {"glasses", "beard"}
    assert found["jaw"] > 30
    assert set(kinds_of(found)) <= set(RARE)


def test_classes_13_keep_glasses_and_hats(tmp_path: Path) -> None:
    parsing = np.full((32, 32), IDS["skin"], np.uint8)
    parsing[:8], parsing[8:12], parsing[28:] = IDS["hat"], IDS["glasses"], IDS["hair"]
    (tmp_path / "parsing19").mkdir()
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "parsing19" / "a.png"), parsing)
    thirteen, eleven = (find_parsed_faces([tmp_path], classes)[0].read()[1] for classes in (13, 11))
    assert [thirteen[0, 0], thirteen[9, 0], thirteen[20, 0], thirteen[30, 0]] == [HAT, GLASSES, 1, HAIR]
    assert [eleven[0, 0], eleven[9, 0], eleven[30, 0]] == [0, 1, HAIR]


def portrait(tmp_path: Path) -> Rgb:
    done = CliRunner().invoke(app, ["render", "--count", "1", "--out", str(tmp_path / "p"), "--format", "png"])
    assert done.exit_code == 0, done.output
    return cv2.resize(read_image(next((tmp_path / "p").glob("*.png"))), (256, 256), interpolation=cv2.INTER_CUBIC)


def test_photographs_are_shown_as_the_hair_model_sees_them(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    scene = np.full((600, 800, 3), 90, np.uint8)
    scene[200:456, 300:556] = portrait(tmp_path)
    for name in "abcdef":
        cv2.imwrite(str(photos / f"{name}.png"), scene[..., ::-1])
    cv2.imwrite(str(photos / "nobody.png"), np.full((300, 300, 3), 20, np.uint8))
    source = Photographs([photos], FacesRecipe(sizes=(128,)), None)
    result = make_faces(source, ruled_teacher(), tmp_path / "out")
    assert (result.labeled, [row["number"] for row in result.failures]) == (6, [6])
    assert "nobody.png" in result.failures[0]["error"]
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert {row["view"] for row in rows} == {"portrait", "wide"}
    images = {row["view"]: read_image(tmp_path / "out" / row["file_name"]) for row in rows}
    walls = {view: float((np.abs(image.astype(int) - 90).max(2) <= 6).mean()) for view, image in images.items()}
    assert walls["wide"] > walls["portrait"] + 0.1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_shards_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidInputError, match="--shard"):
        read_shard(text)
    assert read_shard("2/4") == (2, 4)


@pytest.mark.parametrize(
    "changes", [{"psi": (1.0, 0.6)}, {"sizes": ()}, {"portraits": 0.8}, {"crop": 0}, {"varied": 1}]
)
def test_recipes_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        FacesRecipe(**changes)


def test_command_refuses_another_teacher_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "t.pth").write_bytes(b"nothing")
    arguments = ["--teacher", str(tmp_path / "t.pth"), "--bundle", "demo", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["train", "faces-set", *arguments, "--count", "2"])
    assert isinstance(done.exception, CheckpointError)
    assert "t.pth" in str(done.exception)
    assert not (tmp_path / "out").exists()
