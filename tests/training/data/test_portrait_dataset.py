"""Portraits as data: painted on demand, data set folders, pairs of a generator's picture and the renderer's truth."""

from __future__ import annotations

import csv
import json
import threading
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed, latents_of_seeds
from ohlora.training.data import generated_faces, portrait_faces
from ohlora.training.data.generated_faces import open_generator, require_following, write_generated_pairs
from ohlora.training.data.hair_faces import find_faces
from ohlora.training.data.portrait_faces import (
    HELD_OUT_SEEDS,
    TEST_SEEDS,
    TRAIN_SEEDS,
    DatasetSettings,
    PortraitFace,
    check_seeds,
    dataset_faces,
    read_description,
    run_bounded,
    write_portraits,
)
from ohlora.training.data.portraits import PARAMETERS, Portraits, parameters_from_latents, parameters_from_seeds, render
from tests.support.imitators import SMALL, Imitator, Stranger


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_seed_ranges_are_apart() -> None:
    ranges = sorted((TRAIN_SEEDS, HELD_OUT_SEEDS, TEST_SEEDS), key=lambda r: r.start)
    assert all(a.stop <= b.start for a, b in pairwise(ranges))
    # Below them: demo people, and those that the generator recipes learn from.
    from ohlora.training.gan.config import GanConfig

    first = {field.name: field.default for field in GanConfig.__dataclass_fields__.values()}
    assert first["first_seed"] + first["images"] <= ranges[0].start


def test_portrait_shows_the_person_of_the_seed() -> None:
    image, hair, parsing = PortraitFace(5, 64).read()
    expected = render(parameters_from_latents(face_from_seed(5).z[None]), 64)
    assert np.array_equal(image, expected.images[0])
    assert np.abs(hair / 255 - expected.hair[0]).max() <= 0.51 / 255
    assert parsing is None
    assert np.array_equal(PortraitFace(5, 64).read()[0], image)


# --- data set folders ------------------------------------------------------------------------------------------------


def test_folder_is_what_the_other_stages_read(tmp_path: Path) -> None:
    steps: list[int] = []
    about = write_portraits(tmp_path / "set", count=3, resolution=SMALL, first_seed=7, advance=steps.append)
    assert about["painted"] == sum(steps) == 3
    faces = find_faces([tmp_path / "set"])
    assert [face.name for face in faces] == ["portrait_0000007", "portrait_0000008", "portrait_0000009"]
    assert [face.name for face in dataset_faces(tmp_path / "set")] == [face.name for face in faces]
    made = render(parameters_from_seeds([7, 8, 9]), SMALL)
    for i, face in enumerate(faces):
        image, hair, _ = face.read()
        assert np.array_equal(image, made.images[i])
        assert np.abs(hair / 255 - made.hair[i]).max() <= 0.51 / 255
        parsing = cv2.imread(str(tmp_path / "set" / "parsing11" / f"{face.name}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(parsing, made.parsing[i])
    with (tmp_path / "set" / "parameters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["7", "8", "9"]
    values = [[float(row[p.name]) for p in PARAMETERS] for row in rows]
    assert np.allclose(values, parameters_from_seeds([7, 8, 9]), rtol=1e-6)


def test_jpeg_pictures_have_lossless_maps(tmp_path: Path) -> None:
    write_portraits(tmp_path, count=1, resolution=64, format="jpeg")
    (face,) = find_faces([tmp_path])
    assert face.picture.suffix == ".jpg"
    painted = PortraitFace(TRAIN_SEEDS.start, 64).read()
    assert np.array_equal(face.read()[1], painted[1])
    assert 0 < np.abs(face.read()[0].astype(int) - painted[0]).mean() < 8


class Stopping:
    """The renderer, stopped after some pictures as by Ctrl-C."""

    def __init__(self, calls: int) -> None:
        self.calls, self.lock = calls, threading.Lock()

    def __call__(self, parameters: np.ndarray, resolution: int, threads: int | None = None) -> Portraits:
        with self.lock:
            self.calls -= 1
            if self.calls < 0:
                raise KeyboardInterrupt
        return render(parameters, resolution, threads=1)


def test_stopped_set_goes_on_to_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_portraits(tmp_path / "whole", count=6, resolution=SMALL, workers=2)
    with monkeypatch.context() as patched:
        patched.setattr(portrait_faces, "render", Stopping(4))
        with pytest.raises(KeyboardInterrupt):
            write_portraits(tmp_path / "b", count=6, resolution=SMALL, workers=2)
    assert read_description(tmp_path / "b")["complete"] is False
    with pytest.raises(InvalidInputError, match="unfinished"):
        dataset_faces(tmp_path / "b")
    done = len(list((tmp_path / "b").glob("*.png")))
    assert 0 < done < 6
    (tmp_path / "b" / "hair_soft" / ".ohlora-tmp-killed.png").write_bytes(b"half")
    again = write_portraits(tmp_path / "b", count=6, resolution=SMALL, workers=1)
    assert again["painted"] == 6 - done
    assert contents(tmp_path / "b") == contents(tmp_path / "whole")


def test_a_set_grows_and_is_left_alone_otherwise(tmp_path: Path) -> None:
    write_portraits(tmp_path / "set", count=2, resolution=SMALL)
    assert write_portraits(tmp_path / "set", count=3, resolution=SMALL)["painted"] == 1
    before = contents(tmp_path / "set")
    assert write_portraits(tmp_path / "set", count=3, resolution=SMALL)["painted"] == 0
    for changes, what in (
        ({"resolution": 64}, "resolution 32, asked for is 64"),
        ({"first_seed": 1}, "first_seed 2000000"),
        ({"format": "jpeg"}, "format png"),
        ({"count": 1}, "of 3 pictures, asked for are 1"),
    ):
        with pytest.raises(InvalidInputError, match=what):
            write_portraits(tmp_path / "set", **{"count": 3, "resolution": SMALL, **changes})
    assert contents(tmp_path / "set") == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="not empty"):
        write_portraits(tmp_path / "other", count=1, resolution=SMALL)


def test_another_renderer_is_another_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_portraits(tmp_path, count=1, resolution=SMALL)
    monkeypatch.setattr(portrait_faces, "RENDERER", "another")
    with pytest.raises(InvalidInputError, match="renderer"):
        write_portraits(tmp_path, count=1, resolution=SMALL)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"count": 0}, "number of pictures"),
        ({"count": 10**9}, "number of pictures"),
        ({"first_seed": -1}, "first seed"),
        ({"first_seed": 2**63 - 1}, "first seed"),
        ({"resolution": 7}, "resolution"),
        ({"resolution": 10**6}, "resolution"),
        ({"format": "gif"}, "format 'gif'"),
    ],
)
def test_impossible_requests_write_nothing(tmp_path: Path, changes: dict[str, object], what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        write_portraits(tmp_path / "set", **{"count": 1, "resolution": SMALL, **changes})  # type: ignore[arg-type]
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"count": "3"}'])
def test_damaged_description_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InvalidInputError, match=r"dataset\.json"):
        dataset_faces(tmp_path)
    with pytest.raises(InvalidInputError, match=r"dataset\.json"):
        write_portraits(tmp_path, count=1, resolution=SMALL)


def test_newer_description_is_refused(tmp_path: Path) -> None:
    write_portraits(tmp_path, count=1, resolution=SMALL)
    about = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({**about, "version": 99}))
    with pytest.raises(InvalidInputError, match="version 99"):
        dataset_faces(tmp_path)


def test_work_under_way_is_bounded() -> None:
    lock, started, finished, most = threading.Lock(), 0, 0, 0

    def work(item: int) -> None:
        nonlocal started
        with lock:
            started += 1

    def advance(count: int) -> None:
        nonlocal finished, most
        most = max(most, started - finished)
        finished += count

    run_bounded(work, range(200), 2, advance)
    assert finished == 200
    assert most <= 2 * 2 + 1


def test_command(tmp_path: Path) -> None:
    from ohlora.cli import app

    job = ["train", "portraits", "--count", "2", "--resolution", "32", "--out", str(tmp_path / "set")]
    done = CliRunner().invoke(app, [*job, "--json"])
    assert done.exit_code == 0, done.output
    about = json.loads(done.stdout)
    assert (about["count"], about["painted"], about["first_seed"]) == (2, 2, TRAIN_SEEDS.start)
    again = CliRunner().invoke(app, job)
    assert "0 of 2 portraits painted" in again.output


# --- generated pairs -------------------------------------------------------------------------------------------------


def test_pairs_hold_the_generators_picture_and_the_renderers_truth(tmp_path: Path) -> None:
    about = write_generated_pairs(Imitator(), tmp_path, range(50, 53))
    assert (about["source"], about["count"]) == ("imitator", 3)
    faces = dataset_faces(tmp_path)
    assert [face.name for face in faces] == ["generated_0000050", "generated_0000051", "generated_0000052"]
    for seed, face in zip(range(50, 53), faces, strict=True):
        painted = PortraitFace(seed, SMALL).read()
        image, hair, _ = face.read()
        assert np.array_equal(hair, painted[1])
        assert np.array_equal(image, np.clip(painted[0].astype(int) + 9, 0, 255))


def test_resumed_pairs_come_from_the_same_batches(tmp_path: Path) -> None:
    seeds = range(TRAIN_SEEDS.start, TRAIN_SEEDS.start + 11)
    whole, resumed = Imitator(), Imitator()
    write_generated_pairs(whole, tmp_path / "a", seeds)
    write_generated_pairs(resumed, tmp_path / "b", seeds)
    (tmp_path / "b" / "generated_2000009.png").unlink()
    description = tmp_path / "b" / "dataset.json"
    description.write_text(description.read_text().replace("true", "false"))
    write_generated_pairs(resumed, tmp_path / "b", seeds)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert set(resumed.batches) == {generated_faces.BATCH, generated_faces.CHECKED}
    second = Imitator()
    second.identity = "second"
    with pytest.raises(InvalidInputError, match="source imitator, asked for is second"):
        write_generated_pairs(second, tmp_path / "b", seeds)


def test_generator_of_other_pictures_is_refused(tmp_path: Path) -> None:
    assert require_following(Imitator(), 0) < 0.3
    with pytest.raises(InvalidInputError, match="does not draw the portraits"):
        write_generated_pairs(Stranger(), tmp_path / "set", range(4))
    assert not (tmp_path / "set").exists()


def test_generator_files_and_bundles_draw_alike(tiny_bundle: Path) -> None:
    z, _ = latents_of_seeds(range(3))
    module, bundle = open_generator(tiny_bundle.parent / "g.safetensors"), open_generator(tiny_bundle)
    try:
        assert module.resolution == bundle.resolution == 64
        assert module.identity != bundle.identity
        assert np.abs(module(z).astype(int) - bundle(z)).max() <= 1
        with pytest.raises(InvalidInputError, match="does not draw"):
            require_following(module, 0)
    finally:
        module.close()
        bundle.close()


def test_generators_with_labels_are_refused(tmp_path: Path) -> None:
    from ohlora.training import checkpoints
    from ohlora.training.nets.stylegan import Generator, GeneratorConfig

    labelled = Generator(GeneratorConfig(resolution=8, channel_base=64, channel_max=8, label_size=3))
    checkpoints.save(labelled, tmp_path / "g.safetensors", "stylegan")
    with pytest.raises(InvalidInputError, match="3 label values"):
        open_generator(tmp_path / "g.safetensors")


def test_seeds_are_checked() -> None:
    assert check_seeds(3, 2) == range(3, 5)
    with pytest.raises(InvalidInputError, match="format"):
        DatasetSettings("portrait", 0, 64, "bmp", "portraits", "x")
