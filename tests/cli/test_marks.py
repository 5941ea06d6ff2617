"""What the commands' files say about their origin, and that they say it in the same bytes every time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ohlora.io.animation import write_animation
from ohlora.io.images import read_image
from ohlora.io.marking import RECOLORED, RENDERED, Mark, mark_file, read_mark
from tests.support.command_line import ROOT, files, ohlora, rows, summary

EXAMPLE = ROOT / "ohlora" / "examples" / "astronaut.jpg"


def marks(folder: Path) -> dict[str, Mark | None]:
    made = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix != ".jsonl"]
    return {path.name: read_mark(path) for path in made}


def forget_setting(folder: Path, name: str) -> None:
    """Turn a job's record into one of a version that did not know the setting."""
    record = folder / ".ohlora" / "job.json"
    job = json.loads(record.read_text())
    del job["request"][name]
    canonical = json.dumps(job["request"], sort_keys=True, separators=(",", ":"))
    job["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    record.write_text(json.dumps(job))


@pytest.mark.parametrize(("format", "suffix"), [("jpeg", ".jpg"), ("png", ".png"), ("webp", ".webp")])
def test_portraits_and_their_sheet_are_marked(tiny_bundle: Path, tmp_path: Path, format: str, suffix: str) -> None:
    job = ["render", "--bundle", tiny_bundle, "--faces", "0-2", "--format", format, "--contact-sheet"]
    summary(*job, "--out", tmp_path / "marked")
    summary(*job, "--out", tmp_path / "plain", "--no-mark")
    names = ["contact_sheet.jpg", *(f"seed{seed:06d}{suffix}" for seed in range(3))]
    assert marks(tmp_path / "marked") == dict.fromkeys(sorted(names), RENDERED)
    assert marks(tmp_path / "plain") == dict.fromkeys(sorted(names), None)
    for name in names:  # the mark is all that differs
        mark_file(tmp_path / "plain" / name, RENDERED)
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "marked" / name).read_bytes()
    row, file = rows(tmp_path / "marked")[0], tmp_path / "marked" / names[1]
    assert (row["bytes"], row["sha256"]) == (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())


def test_a_photograph_is_marked_when_it_was_changed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "wall.png"), np.full((200, 200, 3), 128, np.uint8))
    (tmp_path / "in" / "face.jpg").write_bytes(EXAMPLE.read_bytes())
    summary("recolor", tmp_path / "in", "--no-face", "keep", "--contact-sheet", "--out", tmp_path / "out")
    assert marks(tmp_path / "out") == {"contact_sheet.jpg": RECOLORED, "face.jpg": RECOLORED, "wall.jpg": None}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "gif"])
def test_videos_are_marked(tmp_path: Path, suffix: str) -> None:
    import av

    image = cv2.resize(read_image(EXAMPLE), (128, 128))
    source = tmp_path / f"clip.{suffix}"
    if suffix in ("mp4", "gif"):
        write_animation(source, [image, np.roll(image, 2, 1)], fps=10, format=suffix)
    else:
        with av.open(str(source), "w") as container:
            stream = container.add_stream("libvpx" if suffix == "webm" else "mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
            for shift in range(2):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(image, shift, 1)), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    job = ["recolor", source, "--detect", "whole"]
    summary(*job, "--out", tmp_path / "marked")
    summary(*job, "--out", tmp_path / "plain", "--no-mark")
    summary(*job, "--out", tmp_path / "again")
    assert marks(tmp_path / "marked") == {source.name: RECOLORED}
    assert marks(tmp_path / "plain") == {source.name: None}
    assert files(tmp_path / "marked") == files(tmp_path / "again")
    if suffix != "gif":
        for folder in ("marked", "plain"):
            with av.open(str(tmp_path / folder / source.name)) as container:
                assert sum(1 for _ in container.decode(video=0)) == 2


def test_animations_are_marked(tmp_path: Path) -> None:
    job = ["animate", EXAMPLE, "--color", "0:1:2", "--format", "gif"]
    summary(*job, "--out", tmp_path / "photo")
    assert marks(tmp_path / "photo") == {"astronaut.gif": RECOLORED}
    summary(*job, "--out", tmp_path / "plain", "--no-mark")
    assert marks(tmp_path / "plain") == {"astronaut.gif": None}


def test_a_folder_begun_without_marks_is_resumed_without(tiny_bundle: Path, tmp_path: Path) -> None:
    job = ["render", "--bundle", tiny_bundle, "--faces", "0-5", "--out", tmp_path]
    ohlora(*job, "--no-mark")
    before = files(tmp_path)
    assert "mark is false there and true now" in ohlora(*job, status=2).stderr
    forget_setting(tmp_path, "mark")
    for seed in (1, 4):
        (tmp_path / f"seed{seed:06d}.jpg").unlink()
    again = summary(*job)  # a version before marks left them out; so does the rest of its job
    assert (again["written"], again["already_there"]) == (2, 4)
    assert files(tmp_path) == before
