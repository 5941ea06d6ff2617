"""Expressions in words, sets of looks and living faces, asked for as a user asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import files, ohlora, rows, summary

WIDE, MUCH = "eyes wide, mouth normal, pose none", "(눈 아주 크게, 입 크게, 고개 돌림 많이)"


def test_expressions_in_words(tiny_bundle: Path, tmp_path: Path) -> None:
    job = ["render", "--bundle", tiny_bundle, "--faces", "gallery:case0007", "--expression", WIDE]
    report = summary(*job, "--expression", MUCH, "--color", "0.1,0.5", "--out", tmp_path / "a")
    assert (report["images"], report["generator_runs"]) == (4, 2)
    middles = [row["expression"] for row in rows(tmp_path / "a")]
    assert middles[0] == middles[1] == pytest.approx({"eyes": -0.95, "mouth": -0.6, "pose": 0.15})
    assert middles[2] == pytest.approx({"eyes": -1.15, "mouth": -1.2, "pose": -1.65})
    # A drawn preset is the same alone and beside others.
    for extra, out in (([], "b"), (["--expression", MUCH], "c")):
        summary(*job, *extra, "--expression-seed", 7, "--out", tmp_path / out)
    drawn, beside = (rows(tmp_path / out)[0]["expression"] for out in "bc")
    assert drawn == beside != middles[0]
    numbers = [f"--{name}={value!r}" for name, value in drawn.items()]
    summary("render", "--bundle", tiny_bundle, "--faces", "gallery:case0007", *numbers, "--out", tmp_path / "d")
    assert rows(tmp_path / "d")[0]["sha256"] == rows(tmp_path / "b")[0]["sha256"]


def test_a_named_set_of_looks(tiny_bundle: Path, tmp_path: Path) -> None:
    job = ["render", "--bundle", tiny_bundle, "--faces", "gallery:case0007", "--looks", "still50", "--out", tmp_path]
    report = summary(*job)
    assert (report["images"], report["generator_runs"]) == (50, 50)
    last = rows(tmp_path)[-1]
    assert last["expression"] == {"eyes": 1.2, "mouth": 1.8, "pose": 0.6}
    assert last["ombre"] == {"color": 0.98, "height": 0.4, "grad_height": 0.6}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["render", "--expression", "eyes huge, mouth wide, pose none"], "eyes small/normal/wide/very wide (눈 작게"),
        (["render", "--expression", WIDE, "--eyes", "1"], "not both: leave out --eyes 1"),
        (["render", "--expression-seed", "1"], "--expression-seed 1 draws words: give --expression"),
        (["render", "--looks", "still50", "--color", "0.5"], "--looks still50 says expressions and dyes itself"),
        (["render", "--looks", "still5"], "unknown set of looks 'still5': choose still50 (50 looks)"),
        (["render", "--job", "job.json", "--mouth", "1"], "give either --job or"),
        (["animate", "--curve", "wave"], "choose gif40 (40 frames, 20 fps); window80"),
        (["animate", "--faces", "0", "--frames", "9"], "--frames 9 belongs to a live curve, 'gif40' is fixed"),
        (["animate", "--color", "0:1:9", "--seed", "1"], "--seed 1 belongs to a live curve: give --curve live too"),
        (["animate", "example", "--curve", "sweep60"], "nothing moves in curve 'sweep60'"),
        (["animate", "--faces", "0", "--curve", "gif40", "--still", "--undyed"], "nothing moves in curve 'gif40'"),
        (["animate", "example", "--curve", "live", "--expression", WIDE], "needs a face that moves"),
        (["animate", "--curve", "live", "--frames", "99", "--expression", WIDE], "left in 110 frames, 99 are"),
        (["animate", "--curve", "blink", "--color", "0:1:7"], "give one value or --color FIRST:LAST:30"),
    ],
)
def test_looks_that_contradict_each_other_are_refused(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = ohlora(*arguments, "--out", tmp_path / "out", status=2)
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_animate_a_living_face(tiny_bundle: Path, tmp_path: Path) -> None:
    job = ["animate", "--bundle", tiny_bundle, "--curve", "live", "--seed", 3, "--frames", 130, "--expression", WIDE]
    done = summary(*job, "--format", "mp4", "--out", tmp_path / "a")
    assert done["animations"] == 1  # the first face of the gallery
    row = rows(tmp_path / "a")[0]
    assert (row["frames"], row["fps"], row["curve"], row["seed"]) == (130, 30, "live", 3)
    assert row["expression"] == pytest.approx({"eyes": -0.95, "mouth": -0.6, "pose": 0.15})
    assert summary(*job, "--format", "mp4", "--out", tmp_path / "b")["animations"] == 1
    assert files(tmp_path / "b") == files(tmp_path / "a")


def test_animate_lists_its_curves() -> None:
    shown = ohlora("animate", "--list-curves").stdout
    assert all(name in shown for name in ("gif40", "window80", "sweep60", "blink", "live-v3"))
    assert "80 frames  20 fps" in shown


def test_animate_a_curve_with_a_dye_of_ones_own(tiny_bundle: Path, tmp_path: Path) -> None:
    job = ["animate", "--bundle", tiny_bundle, "--faces", "gallery:case0031", "--curve", "blink"]
    for extra, out in ((["--color", "0.5"], "dyed"), ([], "plain"), (["--color", "0:1:30", "--still"], "still")):
        assert summary(*job, *extra, "--out", tmp_path / out)["animations"] == 1
        assert rows(tmp_path / out)[0]["frames"] == 30
