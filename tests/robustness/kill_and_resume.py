"""Run a job, kill it at a chosen moment, run it again, and compare with a run that nobody disturbed."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ohlora.render.journal import METADATA_NAME
from tests.robustness.job_kinds import Inputs, JobKind
from tests.support.command_line import ROOT, files

HANG_SECONDS = 30.0  # beyond what an undisturbed run takes


@dataclass(frozen=True)
class Undisturbed:
    """files: name -> bytes, of all results. seconds: from start to end."""

    files: dict[str, bytes]
    seconds: float


def start(kind: JobKind, inputs: Inputs, out: Path, most_bytes: int | None = None) -> subprocess.Popen[str]:
    """most_bytes: of any file the process writes, as a disk that is full (`ulimit -f`)."""

    def limited() -> None:
        if most_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write gives an error in place of a death
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return subprocess.Popen(
        [sys.executable, "-m", "ohlora", *map(str, kind.arguments(inputs, out))],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
    )


def run(kind: JobKind, inputs: Inputs, out: Path) -> Undisturbed:
    began = time.monotonic()
    process = start(kind, inputs, out)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return Undisturbed(files(out), time.monotonic() - began)


def kill(kind: JobKind, inputs: Inputs, out: Path, when: Callable[[], bool]) -> bool:
    """SIGKILL once `when` is true. Returns whether the process was still at work."""
    process = start(kind, inputs, out)
    while process.poll() is None and not when():
        time.sleep(0.002)
    process.kill()
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert "Traceback" not in errors
    return process.returncode == -signal.SIGKILL


def check_killed(out: Path, whole: Undisturbed) -> None:
    """Every result that has its name is complete; what was under way has a temporary name. Metadata of a job that was
    stopped have rows of the whole only.
    """
    for name, data in files(out).items():
        if name == METADATA_NAME:
            assert set(data.splitlines(keepends=True)) <= set(whole.files[name].splitlines(keepends=True))
        elif not Path(name).name.startswith(".ohlora-tmp-"):
            assert data == whole.files.get(name), f"{name} is half written"


def check_resumed(kind: JobKind, inputs: Inputs, out: Path, whole: Undisturbed) -> None:
    process = start(kind, inputs, out)
    _, errors = process.communicate(timeout=whole.seconds * 3 + HANG_SECONDS)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    there = files(out)
    assert there.keys() == whole.files.keys()
    assert [name for name in there if there[name] != whole.files[name]] == []


def moment(out: Path, whole: Undisturbed, moments: random.Random) -> Callable[[], bool]:
    """A moment while the process is at work: after a part of the time that an undisturbed run takes, starting up left
    out, or as soon as it has written some more files.
    """
    if moments.random() < 0.5:
        until = time.monotonic() + moments.uniform(0.3, 1.0) * whole.seconds
        return lambda: time.monotonic() > until
    written = count(out) + moments.randint(1, max(1, len(whole.files) // 3))
    return lambda: count(out) >= written


def count(out: Path) -> int:
    """Files below the folder that holds `out`: what is not finished may lie beside it."""
    return sum(len(names) for _, _, names in os.walk(out.parent))


def kills_at_random(kind: JobKind, inputs: Inputs, out: Path, whole: Undisturbed, moments: random.Random) -> int:
    """One to three kills in a row at random moments, then a run to the end. Returns how many met a process at work."""
    out.parent.mkdir()
    met = 0
    for _ in range(moments.randint(1, 3)):
        met += kill(kind, inputs, out, moment(out, whole, moments))
        check_killed(out, whole)
    check_resumed(kind, inputs, out, whole)
    assert [path.name for path in out.parent.iterdir()] == [out.name], "something is left beside the results"
    return met
