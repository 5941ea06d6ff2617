"""Jobs that are killed or meet a full disk end with the files of one that ran through."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.robustness.job_kinds import KINDS, Inputs, JobKind, make_inputs
from tests.robustness.kill_and_resume import check_killed, check_resumed, kill, kills_at_random, run, start

BUDGET = float(os.environ.get("OHLORA_ROBUSTNESS_SECONDS", "600"))  # of the long part, for all kinds together
QUICK = [kind for kind in KINDS if kind.name == "render-onnxruntime"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"), items=6)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("many"), items=24)


def results(out: Path) -> int:
    return sum(1 for path in out.glob("*.*") if not path.name.startswith("."))


@pytest.mark.parametrize("kind", QUICK, ids=lambda kind: kind.name)
def test_a_killed_job_ends_with_the_files_of_one_that_ran_through(
    kind: JobKind, inputs: Inputs, tmp_path: Path
) -> None:
    whole = run(kind, inputs, tmp_path / "whole")
    count = random.Random(kind.name).randint(1, (len(whole.files) - 1) // 2)
    out = tmp_path / "killed"
    assert kill(kind, inputs, out, lambda: results(out) >= count)
    check_killed(out, whole)
    check_resumed(kind, inputs, out, whole)


def test_a_full_disk_leaves_no_half_written_file(inputs: Inputs, tmp_path: Path) -> None:
    (kind,) = [kind for kind in KINDS if kind.name == "recolor-photos"]
    whole = run(kind, inputs, tmp_path / "whole")
    sizes = sorted(len(data) for name, data in whole.files.items() if name.endswith(".jpg"))
    out = tmp_path / "full"
    process = start(kind, inputs, out, most_bytes=sizes[len(sizes) // 2])
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "cannot write" in errors
    assert "Traceback" not in errors
    assert 0 < results(out) < len(whole.files)
    check_killed(out, whole)
    check_resumed(kind, inputs, out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_kills_at_random_moments(kind: JobKind, many: Inputs, tmp_path: Path) -> None:
    """As many rounds as an equal part of OHLORA_ROBUSTNESS_SECONDS (600) allows, one at least."""
    until = time.monotonic() + BUDGET / len(KINDS)
    whole = run(kind, many, tmp_path / "whole")
    moments, met, rounds = random.Random(kind.name), 0, 0
    while rounds == 0 or time.monotonic() < until:
        met += kills_at_random(kind, many, tmp_path / str(rounds) / "out", whole, moments)
        rounds += 1
    print(f"{kind.name}: {met} kills in {rounds} rounds")
    assert met or rounds < 3, "no kill met the job at work"
