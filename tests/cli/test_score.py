"""`ohlora score`: golden tables end to end, what is left out, stored figures, the summary page, a bundle's parser."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from ohlora.cli import app
from ohlora.errors import BundleError, InvalidInputError, OutputError
from ohlora.io.images import read_image
from ohlora.kernels.properties import score
from ohlora.scores import score_folder, score_pictures
from ohlora.scores.report import arranged, extremes, histogram
from ohlora.scores.sources import (
    BundlePictures,
    ScoreInputs,
    ScoreItem,
    number_pictures,
    original_view,
    squeezed,
)
from ohlora.scores.statistics import measure, read_statistics, write_statistics
from ohlora.scores.table import ScoreTable, read_score_table

Maps = NDArray[np.uint8]


def run(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit status and summary of `ohlora score ... --json`; errors of the package are raised."""
    result = CliRunner().invoke(app, ["score", *map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def face_scene(number: int) -> tuple[Maps, Maps]:
    """A face of a kind: hair around skin, eyes, nose, mouth, all a little different by number."""
    rng = np.random.default_rng(number)
    parsing = np.zeros((224, 224), np.uint8)
    center = (112 + number % 5, 112)
    cv2.ellipse(parsing, center, (90, 105 + number % 7), 0, 0, 360, 10, -1)
    cv2.ellipse(parsing, center, (60, 80), 0, 0, 360, 1, -1)
    cv2.ellipse(parsing, (85, 95), (12, 4 + number // 3 % 3), 0, 0, 360, 4, -1)
    cv2.ellipse(parsing, (139, 95 + number % 4), (12, 4), 0, 0, 360, 5, -1)
    cv2.ellipse(parsing, (112, 125), (9, 20), number * 3, 0, 360, 6, -1)
    parsing[150:154, 90:134], parsing[154 : 155 + number // 3 % 3, 90:134], parsing[158:162, 90:134] = 7, 8, 9
    picture = cv2.GaussianBlur(rng.integers(0, 256, (224, 224, 3)).astype(np.uint8), (9, 9), 3)
    picture[parsing == 10] //= 1 + number % 4
    return parsing, picture


@pytest.fixture
def parsed(tmp_path: Path) -> Path:
    """Six faces as `train parse` leaves them; numbers 0, 3 .. 15, sources of 300x280 pixels beside."""
    folder, sources = tmp_path / "parsed", tmp_path / "sources"
    folder.mkdir()
    sources.mkdir()
    rows = []
    for number in range(0, 18, 3):
        parsing, picture = face_scene(number)
        cv2.imwrite(str(folder / f"parsing_{number:06d}.png"), parsing)
        cv2.imwrite(str(folder / f"parsing_visualization_{number:06d}.png"), picture)
        cv2.imwrite(str(folder / f"face_{number:06d}.png"), picture)
        cv2.imwrite(str(sources / f"{number}.png"), cv2.resize(picture, (280, 300)))
        rows.append({"number": number, "source": str(sources / f"{number}.png"), "status": "parsed"})
    (folder / "parse.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_golden_tables_from_pictures_to_csv(shared: Path, tmp_path: Path) -> None:
    golden = shared / "golden" / "properties"
    folder = tmp_path / "parsed"
    folder.mkdir()
    with (golden / "v1_full_raw.csv").open(newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    pictures = {}
    for number, name in enumerate(names):
        for kind, target in (("map_crop", "parsing"), ("img_crop", "face")):
            (folder / f"{target}_{number:06d}.png").symlink_to(golden / "inputs" / f"{name}_{kind}.png")
        pictures[number] = shared / "data" / "faces" / f"{name}.jpg"
    result = score_folder(folder, tmp_path / "out", ("v1", "v2", "hairstyle"), pictures=pictures)
    assert (result.pictures, result.scored, result.missing()) == (60, 60, {})
    for algorithm, file_name in (("v1", "all_scores"), ("v2", "all_scores_v2"), ("hairstyle", "all_scores_hairstyle")):
        with (golden / f"{algorithm}_crop_normalized.csv").open(newline="") as file:
            wanted = np.array([[float(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:]])
        assert np.array_equal(read_score_table(tmp_path / "out" / f"{file_name}.csv").values, wanted)


def test_tables_figures_and_summary(parsed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, summary = run("--parsing", parsed, "--algorithm", "all", "--out", out)
    assert (status, summary["pictures"], summary["scored"], summary["failed"]) == (0, 6, 6, 0)
    names = [f"all_scores{a}{kind}.csv" for a in ("", "_v2", "_hairstyle") for kind in ("", "_raw", "_stats")]
    assert sorted(p.name for p in out.iterdir()) == sorted([*names, "scores.html", "scores.png"])
    raw = read_score_table(out / "all_scores_v2_raw.csv")
    assert raw.numbers.tolist() == [0, 3, 6, 9, 12, 15]
    assert raw.paths[1] == str(tmp_path / "sources" / "3.png")
    scenes = [face_scene(number) for number in raw.numbers.tolist()]
    maps, faces = np.stack([m for m, _ in scenes]), np.stack([p for _, p in scenes])
    assert np.array_equal(raw.values, score(maps, faces))
    originals = np.stack([original_view(cv2.resize(p, (280, 300))) for p in faces])
    assert np.array_equal(read_score_table(out / "all_scores_raw.csv").values, score(maps, originals, algorithm="v1"))
    figures = read_statistics(out / "all_scores_v2_stats.csv")
    assert np.array_equal(figures.mean, summary_column(summary, "mean"))
    again = figures.normalized(raw)
    assert np.array_equal(again.values, read_score_table(out / "all_scores_v2.csv").values)
    assert abs(again.values.std(0, ddof=1) - 1).max() < 1e-3


def summary_column(summary: dict[str, Any], key: str) -> NDArray[np.float64]:
    return np.array([entry[key] for entry in summary["statistics"]["v2"].values()])


def test_the_page_needs_nothing_else(parsed: Path, tmp_path: Path) -> None:
    (parsed / "face_000003.png").write_bytes(b"no picture <b>")
    status, summary = run("--parsing", parsed, "--out", tmp_path / "out")
    assert (status, summary["failed"]) == (1, 1)
    page = (tmp_path / "out" / "scores.html").read_text()
    assert not re.search(r"<script|https?:|<link|url\(", page)
    assert page.count("data:image/png;base64,") == 7  # one histogram a property
    assert page.count("data:image/jpeg;base64,") == 14  # its lowest and highest
    assert "5 of 6 pictures scored" in page
    assert "face_000003.png" in page


def test_stored_figures_make_runs_comparable(parsed: Path, tmp_path: Path) -> None:
    run("--parsing", parsed, "--out", tmp_path / "all", "--ddof", "0", "--algorithm", "v2", "-a", "hairstyle")
    stored = tmp_path / "all" / "all_scores_v2_stats.csv"
    two = [tmp_path / "sources" / "9.png", tmp_path / "sources" / "0.png"]
    status, summary = run(*two, "--parsing", parsed, "--apply", stored, "--out", tmp_path / "part")
    assert (status, summary["pictures"]) == (0, 2)
    whole, part = (read_score_table(tmp_path / name / "all_scores_v2.csv") for name in ("all", "part"))
    assert np.array_equal(part.values, whole.rows([0, 9]).values)
    assert abs(whole.values.std(0, ddof=0) - 1).max() < 1e-3
    assert (tmp_path / "part" / "all_scores_v2_stats.csv").read_bytes() == stored.read_bytes()
    with pytest.raises(InvalidInputError, match="figures of v2, which is not asked for"):
        run("--parsing", parsed, "-a", "hairstyle", "--apply", stored, "--out", tmp_path / "x")
    with pytest.raises(InvalidInputError, match="figures of v2 are given twice"):
        run("--parsing", parsed, "--apply", stored, "--apply", stored, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_missing_scores_are_named_and_left_empty(parsed: Path, tmp_path: Path) -> None:
    bald = np.ones((224, 224), np.uint8)
    cv2.imwrite(str(parsed / "parsing_000006.png"), bald)
    result = CliRunner().invoke(app, ["score", "--parsing", str(parsed), "-a", "v1", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    for column in ("hair_color_score", "hair_length_score", "pose_score"):
        assert f"v1 {column}: no score for 1 pictures (6)" in result.output
    table = read_score_table(tmp_path / "out" / "all_scores.csv")
    assert np.isnan(table.rows([6]).values).tolist() == [[False, True, True, False, True, False, False]]
    assert np.isnan(table.values).sum() == 3
    assert read_statistics(tmp_path / "out" / "all_scores_stats.csv").counts.tolist() == [6, 5, 5, 6, 5, 6, 6]
    assert "Without a score" in (tmp_path / "out" / "scores.html").read_text()


def test_pictures_that_cannot_be_scored_are_listed(parsed: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(parsed / "parsing_000000.png"), np.full((224, 224), 17, np.uint8))
    cv2.imwrite(str(parsed / "parsing_000003.png"), np.ones((112, 112), np.uint8))
    cv2.imwrite(str(parsed / "parsing_000006.png"), face_scene(1)[1] % 11)
    (parsed / "face_000009.png").unlink()
    status, summary = run("--parsing", parsed, "--out", tmp_path / "out")
    assert (status, summary["scored"]) == (1, 2)
    errors = {row["number"]: row["error"] for row in summary["failures"]}
    assert "holds the value 17" in errors[0]
    assert "112x112: class maps are 224x224" in errors[3]
    assert "has colours" in errors[6]
    assert "number 9 has no face picture" in errors[9]
    assert read_score_table(tmp_path / "out" / "all_scores_v2.csv").numbers.tolist() == [12, 15]


def test_named_pictures_without_a_map_and_renamed_ones(parsed: Path, tmp_path: Path) -> None:
    extra = tmp_path / "sources" / "000777.png"
    cv2.imwrite(str(extra), face_scene(1)[1])
    anna = tmp_path / "sources" / "3.png"
    anna = anna.rename(anna.with_name("anna.png"))
    rows = (parsed / "parse.jsonl").read_text().replace("sources/3.png", "sources/anna.png")
    (parsed / "parse.jsonl").write_text(rows)
    status, summary = run(anna, extra, "--parsing", parsed, "-a", "v1", "--out", tmp_path / "out")
    assert (status, [row["number"] for row in summary["failures"]]) == (1, [777])
    table = read_score_table(tmp_path / "out" / "all_scores.csv")
    assert (table.numbers.tolist(), table.paths) == ([3], (str(anna),))
    (parsed / "parse.jsonl").unlink()
    with pytest.raises(InvalidInputError, match=r"anna.png has no number at the end of its name"):
        run(anna, "--parsing", parsed, "--out", tmp_path / "out")
    with pytest.raises(InvalidInputError, match=r"v1 is computed on source pictures.*name the pictures"):
        run("--parsing", parsed, "-a", "v1", "--out", tmp_path / "out")
    assert run("--parsing", parsed, "--out", tmp_path / "out")[1]["scored"] == 6


def test_wrong_requests_write_nothing(parsed: Path, tmp_path: Path) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    for arguments, message in (
        ([], "say where class maps come from"),
        (["--parsing", parsed, "--bundle", "demo"], "once: --parsing"),
        (["--parsing", empty], "make class maps with `ohlora train parse`"),
        (["--parsing", tmp_path / "none"], "there is no folder"),
        (["--parsing", parsed, "-a", "v3"], "unknown algorithm 'v3': choose v1, v2 or hairstyle"),
        (["--parsing", parsed, "--strict-hairstyle"], "without the algorithm hairstyle"),
        (["--parsing", parsed, "--apply", parsed / "parse.jsonl"], "no table of score statistics|cannot read"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            run(*arguments, "--out", out)
    (parsed / "parse.jsonl").write_text("{broken\n")
    with pytest.raises(InvalidInputError, match=r"parse.jsonl, line 1"):
        run("--parsing", parsed, "--out", out)
    (parsed / "parse.jsonl").unlink()
    for path in parsed.glob("parsing_0*.png"):
        path.write_bytes(b"")
    with pytest.raises(InvalidInputError, match=r"none of 6 pictures could be scored; the first: .*empty"):
        score_folder(parsed, out)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="it is a file"):
        score_folder(parsed, tmp_path / "file")
    assert not out.exists() or not any(out.iterdir())


def test_strict_hairstyle_reaches_the_kernel(parsed: Path, tmp_path: Path) -> None:
    result = {
        strict: score_folder(parsed, tmp_path / str(strict), ["hairstyle"], strict_hairstyle=strict, report=False)
        for strict in (False, True)
    }
    assert not np.array_equal(result[False].raw["hairstyle"].values, result[True].raw["hairstyle"].values)
    assert sorted(p.suffix for p in (tmp_path / "True").iterdir()) == [".csv"] * 3


def test_the_same_run_gives_the_same_bytes(parsed: Path, tmp_path: Path) -> None:
    for name, threads in (("a", 1), ("b", 3)):
        score_folder(parsed, tmp_path / name, ("v2", "hairstyle"), threads=threads)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


class Endless:
    """A source of any length that counts how much it holds at once."""

    def __init__(self, count: int) -> None:
        self.items = [ScoreItem(number, "") for number in range(count)]
        self.largest = 0
        self._parsing, self._face = face_scene(4)

    def read(self, items: list[ScoreItem], *, face: bool, original: bool) -> list[ScoreInputs]:
        self.largest = max(self.largest, len(items))
        return [ScoreInputs(self._parsing, self._face if face else None, None) for _ in items]

    def picture(self, item: ScoreItem) -> Maps:
        return self._face


def test_many_pictures_come_in_chunks(tmp_path: Path) -> None:
    source, seen = Endless(700), []
    result = score_pictures(source, tmp_path, advance=seen.append)  # type: ignore[arg-type]
    assert (result.scored, sum(seen)) == (700, 700)
    assert source.largest <= 128
    # All equal: nothing to divide by, so nothing is left after normalisation, which is said.
    assert result.without_spread() == {"v2": list(result.raw["v2"].columns)}
    assert np.isnan(result.normalized["v2"].values).all()
    assert not np.isnan(result.raw["v2"].values).any()


# --- parts --------------------------------------------------------------------------------------------------------


def test_statistics_files(tmp_path: Path) -> None:
    values = np.array([[1.5, np.nan, 3, 4, 5, 6, 7], [2.5, np.nan, 3, 4.25, 0.1, 6, 8]])
    table = ScoreTable(np.array([1, 2]), tuple(f"{n}_score" for n in "abcdefg"), values)
    from ohlora.scores.statistics import score_columns

    table = ScoreTable(table.numbers, score_columns("v2"), values)
    figures = measure("v2", table)
    path = tmp_path / "s.csv"
    write_statistics(path, figures)
    again = read_statistics(path)
    for name in ("mean", "std", "counts"):
        assert np.array_equal(getattr(again, name), getattr(figures, name), equal_nan=True), name
    assert (again.algorithm, again.ddof, again.columns) == ("v2", 1, table.columns)
    text = path.read_text()
    for wrong, message in (
        (text.replace("v2,pose", "v1,pose"), "figures of one algorithm"),
        (text.replace("pose_score", "nose_score"), "a line for each of"),
        (text.replace("1.5", "high").replace("2.0,", "high,"), "line 2"),
        ("\n".join(text.splitlines()[:3]), "a line for each of"),
        (text.replace(",1,2\n", ",2,2\n"), "impossible figures"),
        ("a,b\n", "no table of score statistics"),
    ):
        path.write_text(wrong)
        with pytest.raises(InvalidInputError, match=message):
            read_statistics(path)


def test_extremes_and_charts() -> None:
    values = np.array([[3.0], [np.nan], [1], [2], [3], [0], [5], [7], [6]])
    table = ScoreTable(np.arange(9), ("a",), values)
    assert {k: v.tolist() for k, v in extremes(table, "a").items()} == {
        "lowest": [5, 2, 3, 0, 4, 6],
        "highest": [7, 8, 6, 0, 4, 3],
    }
    charts = [histogram("t", values) for values in (values[:, 0], np.full(3, np.nan), np.full(3, 0.5), np.zeros(0))]
    assert len({chart.shape for chart in charts}) == 1
    blue = [(chart == (0x1B, 0x6C, 0xA8)).all(2).sum() for chart in charts]
    assert blue[0] > 0
    assert blue[2] > 0
    assert blue[1] == blue[3] == 0
    sheet = arranged([*charts, charts[0]])
    assert sheet.shape == (2 * charts[0].shape[0], 4 * charts[0].shape[1], 3)


def test_numbers_of_named_pictures(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("b.jpg", "seed_000000.jpg", "2.jpg", "a.jpg")]
    assert {n: p.name for n, p in number_pictures(paths).items()} == {
        0: "seed_000000.jpg",
        1: "b.jpg",
        2: "2.jpg",
        3: "a.jpg",
    }
    assert number_pictures(paths[1:3], {5: paths[2]}) == {0: paths[1], 5: paths[2]}
    with pytest.raises(InvalidInputError, match="both have number 2"):
        number_pictures([*paths, tmp_path / "x2.png"])


# --- bundles ------------------------------------------------------------------------------------------------------


class Parser:
    """Stands for a renderer: every bright pixel of a face is hair, every dark one skin."""

    def __init__(self, classes: Sequence[str] = (*"0123456789", "hair")) -> None:
        self.bundle, self.name, self.classes = self, "stand-in", classes

    def parsing_part(self) -> Parser:
        return self

    def parse(self, images: Sequence[Maps]) -> Maps:
        return np.where(np.array(images).mean(-1) > 128, 10, 1).astype(np.uint8).reshape(-1, 224, 224)


@pytest.mark.parametrize("variant", ["crop", "full-frame"])
def test_pictures_are_cut_parsed_and_scored(shared: Path, tmp_path: Path, variant: str) -> None:
    pictures = {i: shared / "data" / "faces" / f"ftv1_00000{i}.jpg" for i in range(2)}
    pictures[7] = tmp_path / "none.png"
    pictures[9] = tmp_path / "blank.png"
    cv2.imwrite(str(pictures[9]), np.zeros((90, 120, 3), np.uint8))
    with ThreadPoolExecutor(2) as pool:
        source = BundlePictures(Parser(), pictures, pool, variant)  # type: ignore[arg-type]
        result = score_pictures(source, tmp_path / "out", ("v1", "v2"))
    assert [row["number"] for row in result.failures] == ([7, 9] if variant == "crop" else [7])
    table = result.raw["v2"]
    assert table.paths[:2] == tuple(str(path) for path in list(pictures.values())[:2])
    faces = [read_image(pictures[i]) for i in range(2)]
    if variant == "crop":  # the reference crops were made with facenet-pytorch's own detector
        with (shared / "data" / "faces" / "mtcnn.csv").open(newline="") as file:
            rows = {row["name"]: row for row in csv.DictReader(file)}
        assert "no face found in" in result.failures[1]["error"]
        cuts = [crop_of(rows[f"ftv1_00000{i}"]) for i in range(2)]
        faces = [face[top:bottom, left:right] for face, (left, top, right, bottom) in zip(faces, cuts, strict=True)]
    cut = np.stack([squeezed(np.ascontiguousarray(face)) for face in faces])
    assert np.array_equal(table.values[:2], score(Parser().parse(cut), cut))
    originals = np.stack([original_view(read_image(pictures[i])) for i in range(2)])
    assert np.array_equal(result.raw["v1"].values[:2], score(Parser().parse(cut), originals, algorithm="v1"), True)


def crop_of(row: dict[str, str]) -> list[int]:
    return [int(row[key]) for key in ("crop_x0", "crop_y0", "crop_x1", "crop_y1")]


def test_parsers_that_cannot(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), face_scene(1)[1])
    with pytest.raises(BundleError, match=r"no face parser: build one with `ohlora bundle build --parsing"):
        run(tmp_path / "1.png", "--bundle", "demo", "--out", tmp_path / "out")
    with pytest.raises(InvalidInputError, match="no picture was named"):
        run("--bundle", "demo", "--out", tmp_path / "out")
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(InvalidInputError, match="unknown variant 'half'"):
            BundlePictures(Parser(), {}, pool, "half")  # type: ignore[arg-type]
        with pytest.raises(BundleError, match="has the classes skin, hair: scores need the 11"):
            BundlePictures(Parser(("skin", "hair")), {}, pool)  # type: ignore[arg-type]


@pytest.mark.slow
def test_command_with_a_real_bundle(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from ohlora.render.renderer import Renderer
    from ohlora.training.weights.student import save_student
    from tests.support.small_students import parser_bundle, random_parser

    model = random_parser()
    save_student(tmp_path / "parser.safetensors", model.state_dict(), model.encoder_name)
    bundle = parser_bundle(tmp_path / "bundle", tmp_path / "parser.safetensors")
    faces = [shared / "data" / "faces" / f"ftv1_00000{i}.jpg" for i in range(3)]
    options = ("--bundle", bundle.path, "--variant", "full-frame")
    status, summary = run(*faces, *options, "--out", tmp_path / "out")
    assert (status, summary["scored"]) == (0, 3)
    table = read_score_table(tmp_path / "out" / "all_scores_v2_raw.csv")
    assert table.numbers.tolist() == [0, 1, 2]
    with Renderer(bundle) as renderer:
        pictures = [squeezed(read_image(path)) for path in faces]
        assert np.array_equal(table.values, score(renderer.parse(pictures), np.stack(pictures)))
