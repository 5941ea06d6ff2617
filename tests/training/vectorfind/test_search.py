"""The whole search on a small generator: samples on disk, directions, test, files, resume."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ohlora.base.values import Face
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed, load_faces
from ohlora.kernels.properties import PROPERTIES as COLUMNS
from ohlora.kernels.properties import score as kernel_score
from ohlora.latents.directions import read_directions
from ohlora.training.vectorfind import tsne
from ohlora.training.vectorfind.portrayer import Portrayer, torch_portrayer
from ohlora.training.vectorfind.samples import PART, SampleStore, draw_samples
from ohlora.training.vectorfind.scorers import ParsingScorer, ReaderScorer, load_scorer, require_columns
from ohlora.training.vectorfind.search import SearchResult, run_search
from ohlora.training.vectorfind.settings import GradientTraining, SearchSettings
from tests.support.vectorfind_models import PixelScorer, save_models, small_generator, small_portrayer, small_scorer

COUNT = 300
SEARCH = SearchSettings(
    samples=COUNT, groups=("hair_color",), codes=4, stop_after=0, identity=False, grids="all", limits=(0.0, 0.0, 0.0),
    gradient=GradientTraining(epochs=2), refine=1, refine_faces=3, calibrate_faces=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scored codes of the small generator in every space; all scores."""
    folder = tmp_path_factory.mktemp("samples")
    draw_samples(
        small_portrayer(),
        PixelScorer(),
        folder,
        count=COUNT,
        spaces=("z", "w", "mapping_split1", "mapping_split2"),
        columns=PixelScorer().columns,
    )
    return folder


def search(samples: Path, out: Path, **changes: Any) -> SearchResult:
    return run_search(small_portrayer(), PixelScorer(), out, replace(SEARCH, **changes), samples=samples)


# Samples


def test_a_sample_is_the_face_of_its_seed(samples: Path) -> None:
    portrayer, store = small_portrayer(), SampleStore(samples, COUNT, 0, COLUMNS)
    face = face_from_seed(7, 3)
    for space in ("z", "w", "mapping_split1", "mapping_split2"):
        start = portrayer.start(face.z[None], face.label[None], space)
        np.testing.assert_allclose(store.gather(space, np.array([7]))[0], start[0], atol=1e-5)
    images = portrayer.images(portrayer.start(face.z[None], face.label[None], "w"))
    np.testing.assert_allclose(store.scores()[7], PixelScorer().score(images, COLUMNS)[0], atol=1e-4)


def test_gather_keeps_the_order_that_is_asked_for(samples: Path) -> None:
    store = SampleStore(samples, COUNT, 0, COLUMNS)
    index = np.array([250, 3, 77, 3])
    whole = np.concatenate([block for _, block in store.blocks("w")])
    assert whole.shape == (COUNT, 16)
    np.testing.assert_array_equal(store.gather("w", index), whole[index])


def test_samples_are_those_of_an_uninterrupted_run_after_damage(tmp_path: Path, samples: Path) -> None:
    portrayer, scorer = small_portrayer(), PixelScorer()

    def draw() -> SampleStore:
        return draw_samples(portrayer, scorer, tmp_path, count=20, spaces=("w",), columns=COLUMNS)

    first = draw().scores()
    part = tmp_path / "scores" / "part-00000.arrow"
    data = part.read_bytes()
    part.write_bytes(data[: len(data) // 2])
    (tmp_path / "vectors-w" / "part-00000.arrow").unlink()
    np.testing.assert_array_equal(draw().scores(), first)
    assert part.read_bytes() == data


def test_more_samples_and_a_further_space_go_on_from_what_is_there(tmp_path: Path) -> None:
    portrayer, drawn = small_portrayer(label_size=0, split_size=0), []

    def draw(count: int, spaces: tuple[Any, ...]) -> SampleStore:
        class Counting:
            columns, identity, kind = ("eyes", "mouth", "pose"), "0", "counter"

            def score(self, images: np.ndarray, columns: Any) -> np.ndarray:
                drawn.append(len(images))
                return np.zeros((len(images), 3))

        return draw_samples(portrayer, Counting(), tmp_path, count=count, spaces=spaces, columns=Counting.columns)

    draw(10, ("w",))
    assert sum(drawn) == PART  # whole parts
    draw(PART, ("w", "z"))
    assert sum(drawn) == PART
    assert SampleStore(tmp_path, PART, 0, ("eyes",)).gather("z", np.array([PART - 1])).shape == (1, 512)


def test_samples_of_other_networks_are_refused(tmp_path: Path, samples: Path) -> None:
    other = small_generator()
    with torch.no_grad():
        other.mapping.dense[0].bias.add_(1.0)
    with pytest.raises(InvalidInputError, match="generator"):
        run_search(torch_portrayer(other), PixelScorer(), tmp_path, SEARCH, samples=samples)


def test_restart_takes_nothing_over_from_other_networks(tmp_path: Path) -> None:
    class Doubled(PixelScorer):
        identity = "3" * 64

        def score(self, images: np.ndarray, columns: Any) -> np.ndarray:
            return 2 * super().score(images, columns)

    def draw(scorer: PixelScorer, restart: bool = False) -> np.ndarray:
        store = draw_samples(
            small_portrayer(), scorer, tmp_path, count=20, spaces=("w",), columns=COLUMNS, restart=restart
        )
        return store.scores()

    first = draw(PixelScorer())
    with pytest.raises(InvalidInputError, match="scorer"):
        draw(Doubled())
    np.testing.assert_allclose(draw(Doubled(), restart=True), 2 * first, rtol=1e-6)


def test_restart_of_a_search_leaves_shared_samples(tmp_path: Path, samples: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in samples.rglob("*.arrow")}
    first = search(samples, tmp_path)
    again = run_search(small_portrayer(), PixelScorer(), tmp_path, SEARCH, samples=samples, restart=True)
    assert again.test.rows == first.test.rows
    assert {path: path.stat().st_mtime_ns for path in before} == before


# Searches


@pytest.mark.parametrize(
    ("space", "methods"),
    [
        ("z", ("svm", "svm", "svm")),
        ("w", ("svm", "svm", "svm")),
        ("w", ("gradient", "gradient", "gradient")),
        ("mapping_split1", ("gradient", "svm", "svm")),
        ("mapping_split2", ("svm", "svm", "svm")),
        ("w", ("orthogonal", "orthogonal", "orthogonal")),
    ],
)
def test_search_in_every_space_with_every_method(tmp_path: Path, samples: Path, space: str, methods: Any) -> None:
    groups = () if methods[1] != "svm" else SEARCH.groups
    result = search(samples, tmp_path, space=space, methods=methods, groups=groups, strength=(0.5, 0.5, 0.5))
    assert result.directions.space == space
    assert result.directions.generator_sha256 == small_portrayer().sha256
    assert sorted(result.directions.networks) == sorted(
        n for n, m in zip(("eyes", "mouth", "pose"), methods, strict=True) if m == "gradient"
    )
    assert len(result.test.rows) == 4
    assert json.loads((tmp_path / "vectorfind.json").read_text())["space"] == space
    header = next(csv.reader((tmp_path / "image_generation_report" / "test_result.csv").open()))
    assert header[0] == "case"
    assert ("group_name" in header) == (methods[0] != "gradient")
    assert ("svm_group_name" in header) == (methods == ("gradient", "svm", "svm"))
    # Tables and tests have the published sign, the run-time file one that always lowers the score.
    tested = read_directions(tmp_path / "tested.safetensors")
    for name, vectors in tested.vectors.items():
        for group, vector in vectors.items():
            np.testing.assert_array_equal(result.directions.vectors[name][group], vector)
    for name, network in tested.networks.items():
        assert network.scale > 0
        assert result.directions.networks[name].scale == -network.scale
    if "gradient" not in methods:
        assert read_directions(tmp_path, space).space == space


def test_published_orientation_of_svm_and_gradient(tmp_path: Path, samples: Path) -> None:
    shared: dict[str, Any] = {"groups": (), "strength": (1.0, 1.0, 1.0)}
    svm = search(samples, tmp_path / "svm", **shared)
    gradient = search(samples, tmp_path / "gradient", methods=("gradient",) * 3, **shared)
    raised = search(samples, tmp_path / "raised", orientation="raises", **shared)
    for name in ("eyes", "mouth", "pose"):
        means = [result.test.statistics[f"{name}_effect_mean"] for result in (svm, gradient, raised)]
        assert means[0] < 0 < min(means[1:])
    # The run-time file has one meaning for all of them.
    assert raised.directions.sha256 == svm.directions.sha256
    assert all(network.scale < 0 for network in gradient.directions.networks.values())


def test_orthogonal_directions_leak_less_than_svm(tmp_path: Path) -> None:
    """Pictures that follow w linearly, scores that share most of their pixels: entangled, and separable."""
    rng = np.random.default_rng(2)
    mixing = rng.standard_normal((16, 192)) * 4

    def draw(w: np.ndarray) -> np.ndarray:
        return np.clip(w @ mixing + 128, 0, 255).astype(np.uint8).reshape(-1, 8, 8, 3)

    class Entangled(PixelScorer):
        def score(self, images: np.ndarray, columns: Any) -> np.ndarray:
            return super().score(images, columns) + 0.5 * super().score(images, ("hair_color",))

    generator = small_generator()
    portrayer, scorer = Portrayer(generator, draw, "2" * 64, "linear"), Entangled()
    leaks, passed = [], []
    for method in ("orthogonal", "svm"):
        changes = replace(SEARCH, groups=(), methods=(method,) * 3, strength=(0.6, 0.6, 0.6), samples=1000)
        changes = replace(changes, limits=(0.9, 0.9, 0.9), codes=10, grids="none", refine_faces=24)
        result = run_search(portrayer, scorer, tmp_path / method, changes, samples=tmp_path / "samples")
        leaks.append(sum(result.summary["test"]["leakage"].values()) / 3)
        passed.append(result.summary["test"]["passed"])
    assert leaks[0] < 0.05 < leaks[1]
    assert passed[0] >= passed[1]


def test_a_second_call_does_nothing_again_and_test_settings_do_not_search_anew(tmp_path: Path, samples: Path) -> None:
    first = search(samples, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.csv") if "case_" in path.name}
    vectors = (tmp_path / "directions.safetensors").stat().st_mtime_ns
    again = search(samples, tmp_path)
    assert again.test.rows == first.test.rows
    assert {path: path.stat().st_mtime_ns for path in before} == before
    more = search(samples, tmp_path, codes=6)
    assert (tmp_path / "directions.safetensors").stat().st_mtime_ns == vectors
    assert more.test.rows[:4] == first.test.rows
    with pytest.raises(InvalidInputError, match="eyes"):
        search(samples, tmp_path, eyes=(-1.0, 1.0))


def test_deleted_and_damaged_results_are_made_again(tmp_path: Path, samples: Path) -> None:
    first = search(samples, tmp_path)
    report = (tmp_path / "image_generation_report" / "test_result.csv").read_bytes()
    next(tmp_path.rglob("case_002_000_result.csv")).unlink()
    (tmp_path / "directions.safetensors").write_bytes(b"damaged")
    again = search(samples, tmp_path)
    assert again.directions.sha256 == first.directions.sha256
    assert (tmp_path / "image_generation_report" / "test_result.csv").read_bytes() == report


def test_stop_after_enough_faces_have_passed(tmp_path: Path, samples: Path) -> None:
    result = search(samples, tmp_path, codes=50, stop_after=2)
    assert [row["passed"] for row in result.test.rows] == ["O", "O"]


def test_documented_files(tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsne, "embed", lambda vectors: vectors[:, :2].astype(np.float64))  # seconds each
    search(samples, tmp_path, files=True, tsne=True)
    case = tmp_path / "inference_test_after_training" / "test_0001"
    assert len(list(case.glob("case_001_000_pm_0??.jpg"))) == 50
    assert (case / "original_case_01_00.jpg").is_file()
    rows = list(csv.DictReader((case / "case_001_000_result.csv").open()))
    assert len(rows) == 50
    assert list(rows[0])[:7] == ["pm_idx", "eyes_pm", "mouth_pm", "pose_pm", "eyes_score", "mouth_score", "pose_score"]
    report = tmp_path / "image_generation_report"
    codes = np.loadtxt(report / "latent_codes_all.csv", delimiter=",", skiprows=1)
    assert codes.shape == (4, 515)
    np.testing.assert_array_equal(codes, np.round(codes, 4))
    statistics = next(csv.DictReader((report / "test_statistics.csv").open()))
    assert float(statistics["passed_ratio"]) == 1.0
    assert {p.name for p in (tmp_path / "tsne_result").iterdir()} >= {
        "tsne_result_eyes_h.png",
        "tsne_result_pose_l.png",
    }
    assert (tmp_path / "grids" / "case_0003.jpg").is_file()


def test_tsne_of_few_points_and_its_plot() -> None:
    points = tsne.embed(np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32))
    assert points.shape == (6, 2)
    assert np.isfinite(points).all()
    picture = tsne.scatter(points, 3, "title")
    assert picture.shape == (600, 720, 3)
    assert all((picture == color).all(2).any() for color in tsne.COLORS.values())


def test_chosen_faces_are_tested_with_their_groups(tmp_path: Path, samples: Path) -> None:
    search(samples, tmp_path)
    faces = [Face(face_from_seed(i).z, np.zeros(3, np.float32), name=f"chosen{i}", group="hl"[i]) for i in range(2)]
    result = run_search(small_portrayer(), PixelScorer(), tmp_path, SEARCH, samples=samples, faces=faces)
    assert [row["group_name"] for row in result.test.rows] == ["h", "l"]
    assert (tmp_path / "final_vector_test_report" / "test_result.csv").is_file()
    assert result.summary["report"] == "final_vector_test_report"
    other = [Face(face_from_seed(9).z, face.label, name=face.name, group=face.group) for face in faces]
    with pytest.raises(InvalidInputError, match="faces"):  # of the same names: not the faces whose results lie there
        run_search(small_portrayer(), PixelScorer(), tmp_path, SEARCH, samples=samples, faces=other)
    odd = [Face(faces[0].z, faces[0].label, name="odd", group="xx")]
    with pytest.raises(InvalidInputError, match="group"):
        run_search(small_portrayer(), PixelScorer(), tmp_path / "odd", SEARCH, samples=samples, faces=odd)


# What cannot be


def test_a_generator_without_a_split_has_no_split_space(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="mapping_split1"):
        run_search(small_portrayer(split_size=0), PixelScorer(), tmp_path, replace(SEARCH, space="mapping_split1"))


def test_a_score_that_the_scorer_does_not_have() -> None:
    with pytest.raises(InvalidInputError, match="hairstyle"):
        require_columns(small_scorer(), ("eyes", "hairstyle"))
    require_columns(small_scorer(merged=True), ("eyes", "hairstyle"))


def test_a_score_that_never_varies(tmp_path: Path) -> None:
    class Constant:
        columns, identity, kind = ("eyes", "mouth", "pose"), "0", "constant"

        def score(self, images: np.ndarray, columns: Any) -> np.ndarray:
            return np.ones((len(images), len(columns)))

    with pytest.raises(InvalidInputError, match="the same, or missing"):
        run_search(small_portrayer(), Constant(), tmp_path, replace(SEARCH, groups=(), samples=50))


def test_scorers_from_files(tmp_path: Path) -> None:
    from ohlora.training.directions.reader import Reader, save_reader

    _, property_cnn = save_models(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    loaded = load_scorer(property_cnn)
    np.testing.assert_allclose(loaded.score(images, ("pose", "eyes")), small_scorer().score(images, ("pose", "eyes")))
    save_reader(tmp_path / "reader.safetensors", Reader(32, 2))
    reader = load_scorer(tmp_path / "reader.safetensors")
    assert isinstance(reader, ReaderScorer)
    assert reader.score(images, ("mouth",)).shape == (2, 1)
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    with pytest.raises(InvalidInputError, match="scores no faces"):
        load_scorer(tmp_path / "other.safetensors")
    with pytest.raises(InvalidInputError, match="no scorer"):
        load_scorer(tmp_path / "missing.pth")


def test_compiled_scorer_and_synthesis_give_the_same_scores() -> None:
    pytest.importorskip("onnx")
    from ohlora.export.search_engines import compiled_portrayer, compiled_scorer

    portrayer = compiled_portrayer(small_generator())
    plain, scorer = small_portrayer(), small_scorer(merged=True)
    face = face_from_seed(1, 3)
    w = plain.start(face.z[None], face.label[None], "w")
    difference = np.abs(portrayer.images(w).astype(int) - plain.images(w).astype(int))
    assert difference.max() <= 1
    fast = compiled_scorer(scorer, 8, ("hairstyle", "eyes", "background_std"))
    images = plain.images(w)
    for columns in (("eyes",), ("background_std", "hairstyle"), ("hair_color",)):  # the last is not compiled
        np.testing.assert_allclose(fast.score(images, columns), scorer.score(images, columns), atol=1e-4)


def test_parsing_scorer_is_the_property_kernels_on_pictures_of_224() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    seen: list[np.ndarray] = []

    def parse(pictures: np.ndarray) -> np.ndarray:
        seen.append(pictures)
        parsing = np.zeros((len(pictures), 224, 224), np.uint8)
        parsing[:, 60:180, 40:180] = 10
        return parsing

    scores = ParsingScorer(parse, "0").score(images, ("hair_length", "background_mean"))
    wanted = kernel_score(parse(seen[0]), seen[0], algorithm="v2")
    np.testing.assert_array_equal(scores, wanted[:, [2, 5]])
    assert ParsingScorer(parse, "0").score(images[:0], ("eyes",)).shape == (0, 1)


# The command


def run(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ohlora", *arguments], capture_output=True, text=True, timeout=300, **options
    )


def test_command_finds_tests_and_renders_with_the_result(tmp_path: Path) -> None:
    generator, scorer = save_models(tmp_path)
    command = [
        "train", "vectorfind", "orthogonal", "--generator", str(generator), "--scorer", str(scorer), "--out",
        str(tmp_path / "run"), "--samples", "200", "--codes", "3", "--engine", "torch", "--set", "refine=1",
        "--set", "refine_faces=3", "--set", "calibrate_faces=3", "--set", "limits=0,0,0", "--json",
    ]  # fmt: skip
    made = run(command)
    assert made.returncode == 0, made.stderr
    summary = json.loads(made.stdout)
    assert summary["test"]["passed"] == 3
    directions = read_directions(tmp_path / "run")
    assert directions.groups == ["all"]
    kept = run(["train", "select", str(tmp_path / "run"), "--keep", "0,2"])
    assert kept.returncode == 0, kept.stderr
    faces = load_faces([str(tmp_path / "run" / "selected" / "ohlora_z_vectors.csv")], 3)
    assert [face.name for face in faces] == ["case0000", "case0002"]
    again = run([*command, "--set", "sampels=3"])
    assert again.returncode == 2
    assert "did you mean 'samples'" in again.stderr
    no_scorer = run(["train", "vectorfind", "v7", "--generator", str(generator)])
    assert no_scorer.returncode == 2
    assert "--scorer" in no_scorer.stderr


@pytest.mark.parametrize("moment", ["scores", "inference_test_after_training"])
def test_a_killed_search_goes_on_to_the_same_result(tmp_path: Path, moment: str) -> None:
    generator, scorer = save_models(tmp_path)

    def command(out: Path) -> list[str]:
        return [
            "train", "vectorfind", "v7", "--generator", str(generator), "--scorer", str(scorer), "--out", str(out),
            "--samples", "1500", "--codes", "12", "--engine", "torch", "--set", "groups=", "--set", "cutoffs=",
            "--set", "identity=false",
        ]  # fmt: skip

    process = subprocess.Popen(
        [sys.executable, "-m", "ohlora", *command(tmp_path / "killed")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 200
        while process.poll() is None and not any((tmp_path / "killed").rglob(f"{moment}/**/*.*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed" / "vectorfind.json").exists()
    for out in ("killed", "whole"):
        done = run(command(tmp_path / out))
        assert done.returncode == 0, done.stderr
    first, second = (read_directions(tmp_path / out).sha256 for out in ("killed", "whole"))
    assert first == second
    report = "image_generation_report/test_result.csv"
    assert (tmp_path / "killed" / report).read_bytes() == (tmp_path / "whole" / report).read_bytes()
