"""Jobs over files and folders that are not as one expects, by the commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from ohlora.io.animation import write_animation
from ohlora.io.images import encode_image, read_image
from tests.support.command_line import files, rows, status_of

PORTRAIT = Path(__file__).resolve().parents[2] / "ohlora" / "examples" / "astronaut.jpg"
KEPT = ("--detect", "whole")  # no face is looked for


def portrait(path: Path, size: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = cv2.resize(read_image(PORTRAIT)[:300, 60:360], (size, size), interpolation=cv2.INTER_AREA)
    path.write_bytes(encode_image(image, "jpeg"))
    return path


def clip(path: Path, frames: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = read_image(portrait(path.parent / "still.jpg"))
    (path.parent / "still.jpg").unlink()
    write_animation(path, [image] * frames, fps=10, format="mp4")
    return path


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Two photographs, and a link between them to a file that is gone."""
    portrait(tmp_path / "faces" / "a.jpg")
    portrait(tmp_path / "faces" / "c.jpg")
    (tmp_path / "faces" / "b.jpg").symlink_to("nowhere.jpg")
    return tmp_path / "faces"


def test_a_broken_link_among_photographs_fails_alone(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert status_of("recolor", faces, "--out", out, *KEPT) == 1
    assert "b.jpg: it is a link to a file that is gone" in capsys.readouterr().err
    assert [row["source"] for row in rows(out)] == ["a.jpg", "c.jpg"]
    assert status_of("recolor", faces, "--out", out, *KEPT) == 1
    assert "2 were there already" in capsys.readouterr().out


def test_a_broken_link_among_photographs_to_animate_fails_alone(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert status_of("animate", faces, "--color", "0:1:3", "--out", out) == 1
    assert "b.jpg" in capsys.readouterr().err
    assert sorted(files(out)) == ["a.gif", "c.gif", "metadata.jsonl"]


def test_a_broken_link_among_videos_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip(tmp_path / "clips" / "b.mp4")
    (tmp_path / "clips" / "a.mp4").symlink_to("nowhere.mp4")
    assert status_of("recolor", tmp_path / "clips", "--out", tmp_path / "out", *KEPT) == 1
    assert "a.mp4" in capsys.readouterr().err
    assert sorted(files(tmp_path / "out")) == ["b.mp4", "metadata.jsonl"]


def test_a_file_that_vanishes_after_it_was_listed_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    portrait(tmp_path / "faces" / "a.jpg")
    portrait(tmp_path / "faces" / "b.jpg")

    def listed(roots: list[Path], recursive: bool = False) -> tuple[list[Path], list[Path]]:
        (tmp_path / "faces" / "a.jpg").unlink(missing_ok=True)
        return [tmp_path / "faces" / "a.jpg", tmp_path / "faces" / "b.jpg"], []

    monkeypatch.setattr("ohlora.cli.sources.sort_sources", listed)
    assert status_of("recolor", tmp_path / "faces", "--out", tmp_path / "out", *KEPT) == 1
    assert "a.jpg: there is no such file" in capsys.readouterr().err
    assert sorted(files(tmp_path / "out")) == ["b.jpg", "metadata.jsonl"]


@pytest.mark.parametrize("command", ["recolor", "animate"])
@pytest.mark.parametrize("name", ["missing.mp4", "missing.jpg", "missing"])
def test_a_missing_path_that_is_named_is_a_bad_request(
    tmp_path: Path, command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there = portrait(tmp_path / "a.jpg")
    assert status_of(command, there, tmp_path / name, "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err == f"ohlora: there is no file or folder {tmp_path / name}\n"
    assert not (tmp_path / "out").exists()


def test_names_too_long_are_cut_and_a_folder_in_the_way_fails_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    portrait(tmp_path / "faces" / ("x" * 251 + ".jpg"))
    portrait(tmp_path / "faces" / "a.jpg")
    out = tmp_path / "out"
    (out / "a_0001.jpg").mkdir(parents=True)
    command = ("recolor", tmp_path / "faces", "--out", out, "--color", "0.1,0.5", *KEPT)
    assert status_of(*command) == 1
    assert "a_0001.jpg: a folder stands there" in capsys.readouterr().err
    assert len([name for name in files(out) if name.startswith("xxx")]) == 2
    (out / "a_0001.jpg").rmdir()
    assert status_of(*command) == 0
    assert len(rows(out)) == 4
    assert all((out / row["file_name"]).is_file() for row in rows(out))


def test_subfolders_are_kept_below_a_linked_root(tmp_path: Path) -> None:
    portrait(tmp_path / "faces" / "ann" / "001.jpg")
    portrait(tmp_path / "faces" / "bob" / "001.jpg")
    (tmp_path / "link").symlink_to("faces")
    assert status_of("recolor", tmp_path / "link", "-r", "--out", tmp_path / "out", *KEPT) == 0
    assert [(row["file_name"], row["source"]) for row in rows(tmp_path / "out")] == [
        ("ann/001.jpg", "ann/001.jpg"),
        ("bob/001.jpg", "bob/001.jpg"),
    ]


def test_a_contact_sheet_takes_no_result_and_is_no_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    portrait(tmp_path / "faces" / "contact_sheet.jpg")
    portrait(tmp_path / "faces" / "a.jpg")
    out, again = tmp_path / "out", tmp_path / "again"
    assert status_of("recolor", tmp_path / "faces", "--contact-sheet", "--out", out, *KEPT) == 0
    assert sorted(files(out)) == ["a.jpg", "contact_sheet.jpg", "contact_sheet_2.jpg", "metadata.jsonl"]
    before = files(out)
    assert status_of("recolor", tmp_path / "faces", "--contact-sheet", "--out", out, *KEPT) == 0
    assert files(out) == before
    capsys.readouterr()
    assert status_of("recolor", out, "--out", again, *KEPT) == 0
    assert "contact_sheet_2.jpg is the contact sheet of a job: it is left out" in capsys.readouterr().err
    assert [row["source"] for row in rows(again)] == ["a.jpg", "contact_sheet.jpg"]
    assert status_of("recolor", out / "contact_sheet_2.jpg", "--out", tmp_path / "named", *KEPT) == 0


def test_results_are_compared_with_their_metadata(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c", "d"):
        portrait(tmp_path / "faces" / f"{name}.jpg")
    out = tmp_path / "out"
    assert status_of("job", "verify", out) == 2
    assert status_of("recolor", tmp_path / "faces", "--out", out, *KEPT) == 0
    capsys.readouterr()
    assert status_of("job", "verify", out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(out), "checked": 4, "failed": 0, "failures": []}
    data = bytearray((out / "b.jpg").read_bytes())
    data[-20] ^= 1
    (out / "b.jpg").write_bytes(data)
    (out / "c.jpg").write_bytes(b"")
    (out / "d.jpg").unlink()
    assert status_of("job", "verify", out, "--json") == 1
    messages = json.loads(capsys.readouterr().out)["failures"]
    assert [message.split(":")[0] for message in messages] == [
        f"{out / 'b.jpg'} is not the file that was written",
        f"{out / 'c.jpg'} has 0 bytes, its metadata say {rows(out)[2]['bytes']}",
        f"{out / 'd.jpg'} is missing",
    ]
    assert status_of("job", "status", out, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown.items() >= {"command": "recolor", "finished": 4, "failed": 0, "running": False, "unusable": 0}.items()


def test_a_count_that_no_folder_holds_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--count", 10_000_000, "--color", "0:1:1000")
    assert status_of("render", *asked, "--out", tmp_path / "out") == 2
    assert "10,000,000,000 images asked for; the limit of one job is 100,000,000" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


STREAMS = """
import sys
sys.{stream} = None
sys.argv = ["ohlora", "recolor", {source!r}, "--out", {out!r}, "--detect", "whole"]
from ohlora.cli import main
main()
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_process_without_a_stream_works(tmp_path: Path, stream: str) -> None:
    source, out = str(portrait(tmp_path / "a.jpg")), str(tmp_path / "out")
    code = STREAMS.format(stream=stream, source=source, out=out)
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
    assert sorted(files(tmp_path / "out")) == ["a.jpg", "metadata.jsonl"]


def test_streams_that_a_shell_closed_or_that_are_full(tmp_path: Path) -> None:
    source = portrait(tmp_path / "a.jpg")
    command = f"{sys.executable} -m ohlora recolor {source} --detect whole"
    closed = subprocess.run(f"{command} --out {tmp_path / '1'} 0<&- 1>&- 2>&-", shell=True, timeout=120)
    assert closed.returncode == 0
    full = subprocess.run(
        f"{command} --out {tmp_path / '2'} >/dev/full", shell=True, timeout=120, stderr=subprocess.PIPE, text=True
    )
    assert full.returncode == 1
    assert full.stderr == "ohlora: cannot write the result to standard output: No space left on device\n"
    assert files(tmp_path / "1") == files(tmp_path / "2")
    assert sorted(files(tmp_path / "2")) == ["a.jpg", "metadata.jsonl"]


def test_an_interrupted_command_gives_its_summary(tmp_path: Path) -> None:
    for number in range(3):
        portrait(tmp_path / "faces" / f"{number}.jpg")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ohlora", "animate", tmp_path / "faces", "--json", "--out", out]
    process = subprocess.Popen(
        [*map(str, command), "--color", "0:1:3000", "--format", "mp4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not list(out.glob(".ohlora-tmp-*")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    told, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    summary = json.loads(told)
    assert summary["interrupted"] is True
    assert summary["animations"] == 3
    assert summary["written"] < 3
    assert "the same command resumes" in errors
    assert not list(out.glob(".ohlora-tmp-*"))
