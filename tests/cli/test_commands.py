"""The commands, run as a user runs them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ohlora.io.animation import write_animation
from ohlora.io.images import read_image
from tests.support.command_line import ROOT, files, ohlora, rows, summary
from tests.support.hair_only_bundle import hair_only

EXAMPLE = ROOT / "ohlora" / "examples" / "astronaut.jpg"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of different sizes made from the example."""
    folder = tmp_path_factory.mktemp("photos")
    image = cv2.imread(str(EXAMPLE))
    for i, size in enumerate([(256, 256), (128, 128), (300, 300), (200, 260), (640, 480), (97, 101)]):
        cv2.imwrite(str(folder / f"p{i}.png"), cv2.resize(image, size))
    return folder


# --- recolor --------------------------------------------------------------------------------------------------------


def test_example_is_dyed_from_below(tmp_path: Path) -> None:
    report = summary("recolor", "example", "--out", tmp_path, "--format", "png", "--color", 0.5)
    assert (report["written"], report["failed"], report["without_hair"]) == (1, 0, 0)
    before, after = read_image(EXAMPLE), read_image(tmp_path / "astronaut.png")
    changed = (before != after).any(2)
    assert 0.02 < changed.mean() < 0.3
    # The dye is a share of the hair from below: the top of the head keeps its colour.
    first = np.flatnonzero(changed.any(1))[0]
    assert first > 30
    # Towards the dye's hue (sky blue): red falls against blue where it is dyed.
    assert (
        (after[changed].astype(int) - before[changed])[:, 0].mean()
        < 0
        < (after[changed, 2] > before[changed, 2]).mean()
    )


def test_any_size_and_many_colours(photos: Path, tmp_path: Path) -> None:
    report = summary(
        "recolor", photos, "--out", tmp_path, "--color", "0.1,0.5,0.9", "--format", "png", "--contact-sheet"
    )
    assert report["images"] == report["written"] == 18
    assert (tmp_path / "contact_sheet.jpg").is_file()
    for row in rows(tmp_path):
        image = read_image(tmp_path / row["file_name"])
        assert image.shape[:2] == read_image(photos / row["source"]).shape[:2] == (row["height"], row["width"])


def test_resume_does_only_what_is_missing(photos: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    ohlora("recolor", photos, "--out", whole)
    before = files(whole)
    (whole / "p3.jpg").unlink()
    again = summary("recolor", photos, "--out", whole)
    assert (again["written"], again["already_there"]) == (1, 5)
    assert files(whole) == before
    refused = ohlora("recolor", photos, "--out", whole, "--color", 0.9, status=2)
    assert "another job" in refused.stderr
    assert "color" in refused.stderr
    assert files(whole) == before
    assert summary("recolor", photos, "--out", whole, "--color", 0.9, "--restart")["written"] == 6


def test_subfolders_are_kept_and_swept(photos: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(photos, source / "deep" / "er")
    shutil.copy(photos / "p0.png", source / "top.png")
    (out / "deep" / "er").mkdir(parents=True)
    leftover = out / "deep" / "er" / ".ohlora-tmp-0123456789ab.jpg"
    leftover.write_bytes(b"half")
    assert "deep" not in ohlora("recolor", source, "--out", tmp_path / "flat").stdout
    assert summary("recolor", source, "--recursive", "--out", out)["written"] == 7
    assert {"top.jpg", "deep/er/p0.jpg"} <= set(files(out))
    assert not leftover.exists()


def test_batch_and_workers_do_not_change_a_byte(photos: Path, tmp_path: Path) -> None:
    ohlora("recolor", photos, "--out", tmp_path / "a", "--batch", 1, "--workers", 1, "--threads", 1)
    ohlora("recolor", photos, "--out", tmp_path / "b", "--batch", 16, "--workers", 5, "--threads", 3)
    ohlora("recolor", photos / "p4.png", "--out", tmp_path / "c")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "c")["p4.jpg"] == files(tmp_path / "a")["p4.jpg"]


def test_bad_pictures_fail_alone(photos: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(photos, source)
    (source / "empty.jpg").touch()
    (source / "text.png").write_text("no picture")
    (source / "cut.png").write_bytes((photos / "p4.png").read_bytes()[:2000])
    (source / "strip.png").write_bytes(cv2.imencode(".png", np.zeros((4, 400, 3), np.uint8))[1].tobytes())
    (source / "misnamed.jpg").write_bytes((photos / "p0.png").read_bytes())
    done = summary("recolor", source, "--out", tmp_path / "out", status=1)
    assert (done["written"], done["failed"]) == (7, 4)
    for name in ("empty.jpg", "text.png", "cut.png", "strip.png"):
        assert sum(name in message for message in done["failures"]) == 1
    made = files(tmp_path / "out")
    assert len([name for name in made if name.endswith(".jpg")]) == len(rows(tmp_path / "out")) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["example", "--color", "1.5"], "Ombre.color must be in [0, 1], got 1.5"),
        (["example", "--color", "nan"], "Ombre.color"),
        (["example", "--ombre-height", "-1"], "Ombre.height"),
        (["example", "--format", "bmp"], "format must be jpeg, png or webp, got 'bmp'"),
        (["example", "--bundle", "nothing"], "nothing"),
        (["example", "--backend", "tpu"], "tpu"),
        (["example", "--precision", "int3"], "int3"),
    ],
)
def test_bad_requests_write_nothing(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = ohlora("recolor", *arguments, "--out", tmp_path / "out", status=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_empty_folder_and_file_as_output(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in ohlora("recolor", tmp_path / "empty", "--out", tmp_path / "out", status=2).stderr
    (tmp_path / "file").write_text("x")
    done = ohlora("recolor", "example", "--out", tmp_path / "file" / "below", status=2)
    assert "file" in done.stderr


def test_damaged_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(ROOT / "ohlora" / "bundle" / "demo", bundle)
    data = bytearray((bundle / "hair.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "hair.onnx").write_bytes(data)
    done = ohlora("recolor", "example", "--bundle", bundle, "--out", tmp_path / "out", status=2)
    assert "hair.onnx" in done.stderr


# --- render ---------------------------------------------------------------------------------------------------------


def test_a_sweep_generates_each_face_once(tiny_bundle: Path, tmp_path: Path) -> None:
    report = summary("render", "--bundle", tiny_bundle, "--faces", "0-4", "--color", "0:1:8", "--out", tmp_path)
    assert (report["images"], report["written"], report["generator_runs"]) == (40, 40, 5)
    assert [row["file_name"] for row in rows(tmp_path)][8] == "seed000001_0000.jpg"
    assert {row["bundle_sha256"] for row in rows(tmp_path)} != {None}


def test_item_alone_equals_item_in_the_job(tiny_bundle: Path, tmp_path: Path) -> None:
    job = ["render", "--bundle", tiny_bundle, "--color", 0.5]
    ohlora(*job, "--faces", "0-8", "--out", tmp_path / "a")
    ohlora(*job, "--faces", "0-8", "--out", tmp_path / "b", "--batch", 3, "--workers", 4, "--threads", 3)
    ohlora(*job, "--faces", "6", "--out", tmp_path / "c", "--batch", 1, "--threads", 1)
    a, b, c = (files(tmp_path / name) for name in "abc")
    assert a == b
    assert c["seed000006.jpg"] == a["seed000006.jpg"]


def test_expressions_from_tables(tiny_bundle: Path, tmp_path: Path) -> None:
    job = ["render", "--bundle", tiny_bundle, "--faces", "gallery", "--format", "png"]
    report = summary(*job, "--eyes", "-1.2,0,1.2", "--color", "0.1,0.5", "--out", tmp_path / "a")
    assert (report["images"], report["generator_runs"]) == (12, 6)
    names = {row["file_name"]: row for row in rows(tmp_path / "a")}
    assert names["case0007_0000.png"]["expression"]["eyes"] == -1.2
    assert names["case0007_0000.png"]["group"] == "hh"
    one, other = (read_image(tmp_path / "a" / f"case0007_{i:04d}.png") for i in (0, 4))
    assert (one != other).any()
    done = ohlora("render", "--bundle", tiny_bundle, "--faces", "3", "--eyes", 1, "--out", tmp_path / "b", status=2)
    assert "no direction group" in done.stderr
    assert not (tmp_path / "b").exists()


def test_job_file(tiny_bundle: Path, tmp_path: Path) -> None:
    job = {"faces": ["0-2"], "looks": [{"ombre": {"color": 0.5}}, {"ombre": None}], "format": "webp"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    report = summary("render", "--bundle", tiny_bundle, "--job", tmp_path / "job.json", "--out", tmp_path / "out")
    assert (report["written"], report["generator_runs"]) == (6, 3)
    assert rows(tmp_path / "out")[1]["ombre"] is None
    for change, message in (({"color": 1}, "color"), ({"looks": [{"ombre": {"color": "red"}}]}, "looks.0.ombre.color")):
        (tmp_path / "bad.json").write_text(json.dumps({**job, **change}))
        done = ohlora(
            "render", "--bundle", tiny_bundle, "--job", tmp_path / "bad.json", "--out", tmp_path / "x", status=2
        )
        assert message in done.stderr


def test_render_without_a_generator(tmp_path: Path) -> None:
    hair_only(tmp_path / "hair")
    job = ["render", "--bundle", tmp_path / "hair", "--out", tmp_path / "never"]
    for faces in ([], ["--faces", "0"], ["--count", "3"]):
        assert "has no generator" in ohlora(*job, *faces, status=2).stderr
    assert not (tmp_path / "never").exists()


LONG_FACES = 250


def long_job(bundle: Path) -> list[object]:
    return ["render", "--bundle", bundle, "--faces", f"0-{LONG_FACES - 1}", "--color", "0.2,0.7", "--batch", "8"]


def kill_at(count: int, pattern: str, out: Path, job: list[object], how: signal.Signals) -> int:
    """Run a command and end it when `count` results are there. Returns how many are left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ohlora", *map(str, job), "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Test runners started in the background ignore Ctrl-C, and their children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob(pattern))) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    done = len(list(out.glob(pattern)))
    assert done >= count
    if how != signal.SIGKILL:
        assert process.returncode == 130
        assert "resumes" in errors
        assert len(rows(out)) == done
    return done


@pytest.fixture(scope="module")
def uninterrupted(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("uninterrupted")
    assert summary(*long_job(tiny_bundle), "--out", out)["generator_runs"] == LONG_FACES
    return files(out)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_job_resumes_to_the_same_files(
    tiny_bundle: Path, uninterrupted: dict[str, bytes], tmp_path: Path, how: signal.Signals
) -> None:
    job, killed = long_job(tiny_bundle), tmp_path / "killed"
    done = kill_at(40, "*.jpg", killed, job, how)
    assert done < 2 * LONG_FACES, "the job was not killed in the middle"
    again = summary(*job, "--out", killed)
    # All units but those under way when it was killed are kept.
    assert again["generator_runs"] <= LONG_FACES - done // 2 + 8
    assert files(killed) == uninterrupted
    assert not list(killed.glob(".ohlora-tmp-*"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_animations_resume_to_the_same_files(tiny_bundle: Path, tmp_path: Path, how: signal.Signals) -> None:
    job = ["animate", "--bundle", tiny_bundle, "--faces", "0-11", "--curve", "live", "--still", "--format", "mp4"]
    job += ["--frames", 60]
    done = kill_at(3, "seed*.mp4", tmp_path / "killed", job, how)
    assert done < 12
    again = summary(*job, "--out", tmp_path / "killed")
    assert (again["animations"], again["written"] + again["already_there"]) == (12, 12)
    assert again["already_there"] >= done - 1, "at most the one that was just put in place is made again"
    summary(*job, "--out", tmp_path / "whole")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_videos_resume_to_the_same_files(tmp_path: Path, how: signal.Signals) -> None:
    image = read_image(EXAMPLE)
    for clip in range(3):
        frames = (np.ascontiguousarray(np.roll(image, 2 * (frame + clip), axis=1)) for frame in range(12))
        write_animation(tmp_path / f"clip{clip}.mp4", frames, fps=12, format="mp4")
    job = ["recolor", tmp_path, "--color", "0.1,0.9"]
    done = kill_at(2, "clip*.mp4", tmp_path / "killed", job, how)
    assert done < 6
    again = summary(*job, "--out", tmp_path / "killed")
    assert (again["videos"], again["written"] + again["already_there"]) == (6, 6)
    assert again["already_there"] >= done - 2
    summary(*job, "--out", tmp_path / "whole")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert [row["file_name"] for row in rows(tmp_path / "whole")][:3] == [
        "clip0_0000.mp4", "clip0_0001.mp4", "clip1_0000.mp4",
    ]  # fmt: skip


def test_a_folder_of_the_version_before_is_resumed(photos: Path, tmp_path: Path) -> None:
    """Precision was spelled f32 in requests and rows, and lines had no checksum."""
    ohlora("recolor", photos, "--out", tmp_path)
    before, record = files(tmp_path), tmp_path / ".ohlora"
    job = json.loads((record / "job.json").read_text())
    job["request"]["engine"] = job["request"]["engine"].replace("fp32", "f32")
    canonical = json.dumps(job["request"], sort_keys=True, separators=(",", ":"))
    job["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    (record / "job.json").write_text(json.dumps(job))
    journal = re.sub(r', "check": "\w+"', "", (record / "journal.jsonl").read_text().replace("-fp32", "-f32"))
    (record / "journal.jsonl").write_text("".join(journal.splitlines(keepends=True)[:4]))
    again = summary("recolor", photos, "--out", tmp_path)
    assert (again["written"], again["already_there"]) == (2, 4)
    assert files(tmp_path) == before


def test_full_disk_stops_with_a_resumable_job(tiny_bundle: Path, tmp_path: Path) -> None:
    script = (
        "import errno, pathlib, sys\n"
        "real = pathlib.Path.write_bytes\n"
        "count = 0\n"
        "def write(self, data):\n"
        "    global count\n"
        "    count += self.suffix == '.jpg'\n"
        "    if count > 20: raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "    return real(self, data)\n"
        "pathlib.Path.write_bytes = write\n"
        "from ohlora.cli import main\n"
        "main()\n"
    )
    job = ["render", "--bundle", str(tiny_bundle), "--faces", "0-99", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", script, *job], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 1
    assert "disk is full" in done.stderr
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 20
    assert summary(*job)["written"] == 80


# --- the others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["gif", "webp", "mp4"])
def test_animate_photo(tmp_path: Path, format: str) -> None:
    done = summary("animate", "example", "--color", "0:1:6", "--format", format, "--out", tmp_path)
    assert done["animations"] == 1
    assert rows(tmp_path)[0]["frames"] == 6
    assert (tmp_path / f"astronaut.{format}").stat().st_size > 1000


def test_animate_face_along_the_documented_curve(tiny_bundle: Path, tmp_path: Path) -> None:
    job = ["animate", "--bundle", tiny_bundle, "--faces", "gallery:case0031", "--curve", "gif40", "--out", tmp_path]
    assert summary(*job)["animations"] == 1
    assert rows(tmp_path)[0]["frames"] == 40
    before = files(tmp_path)
    assert summary(*job)["animations"] == 1
    assert files(tmp_path) == before


def test_bundle_and_doctor(tiny_bundle: Path) -> None:
    assert "hair" in ohlora("bundle", "info", "demo").stdout
    assert "all engines are good" in ohlora("bundle", "verify", tiny_bundle).stdout
    report = summary("doctor")
    assert report["healthy"]
    assert {"bundle demo", "hair engine"} <= {check["check"] for check in report["checks"]}


def test_bundle_build_refuses_a_wrong_kind(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    build = ["bundle", "build", "--generator", tmp_path / "x.pth", "--out", tmp_path / "b"]
    assert "x.pth is no 'stylegan-celeba256'" in ohlora(*build, "--kind", "stylegan-celeba256", status=2).stderr
    assert "kind 'nope' of weights" in ohlora(*build, "--kind", "nope", status=2).stderr
    assert not (tmp_path / "b").exists()


def test_help_has_examples() -> None:
    for command in (["recolor"], ["render"], ["animate"], ["bundle", "build"], ["train", "distill"], ["doctor"]):
        environment = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, "-m", "ohlora", *command, "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        assert done.returncode == 0
        assert f"ohlora {' '.join(command)}" in done.stdout
        assert "Example" in done.stdout
