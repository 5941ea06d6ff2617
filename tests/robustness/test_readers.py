"""Changed files and texts are read or refused: no other exception, crash, hang, or memory beyond what is allowed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the train extra makes the networks among the inputs")

from tests.robustness import fuzz
from tests.robustness.readers import READERS, Reader

PER_READER = 8  # of each the first, which are the same in every run


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fuzz.Worker]:
    with fuzz.Worker(tmp_path_factory.mktemp("inputs")) as worker:
        yield worker


def test_changed_inputs_are_read_or_refused(worker: fuzz.Worker) -> None:
    report = fuzz.fuzz(list(READERS), worker, inputs=PER_READER * len(READERS), reduced=False)
    assert report.inputs == PER_READER * len(READERS)
    assert not report.findings, str(report)
    refused = sum(counts["refused"] for counts in report.outcomes.values())
    assert refused > report.inputs // 3, "the changes are hardly noticed"


@pytest.mark.parametrize("path", fuzz.cases(), ids=lambda path: path.relative_to(fuzz.CASES).as_posix())
def test_what_was_found_once_stays_mended(worker: fuzz.Worker, path: Path) -> None:
    answer = fuzz.read_case(path, worker)
    assert answer["outcome"] in fuzz.GOOD, answer


def test_changes_are_the_same_in_every_run() -> None:
    reader = READERS["labels"]
    inputs = reader.inputs()
    first = [fuzz.variant(reader, inputs, number) for number in range(50)]
    assert first == [fuzz.variant(reader, inputs, number) for number in range(50)]
    assert len({str(files) for files, _ in first}) > 40


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("raise KeyError('x')", "traceback"),
        ("bytearray(4 << 30)", "memory"),
        ("import os; os.abort()", "crash"),
        ("import time; time.sleep(60)", "hang"),
    ],
)
def test_the_worker_tells_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, outcome: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from pathlib import Path\n"
        "from tests.robustness.readers import READERS, Reader\n"
        "READERS['fault'] = Reader('fault', list, lambda folder: exec((folder / 'code').read_text()))\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(fuzz.ROOT)]))
    monkeypatch.setattr(fuzz, "HANG_SECONDS", 2.0)
    fault = Reader("fault", list, print)
    with fuzz.Worker(tmp_path) as worker:
        assert worker.read(fault, {"code": b"pass"}) == {"outcome": "read"}
        assert worker.read(fault, {"code": code.encode()})["outcome"] == outcome
        assert worker.read(fault, {"code": b"pass"}) == {"outcome": "read"}, "it is begun again"


@pytest.mark.slow
def test_ten_thousand_changed_inputs(tmp_path: Path) -> None:
    """As many as OHLORA_ROBUSTNESS_SECONDS allow. A finding's file is kept below the test's folder."""
    seconds = float(os.environ.get("OHLORA_ROBUSTNESS_SECONDS", "600"))
    (tmp_path / "inputs").mkdir()
    with fuzz.Worker(tmp_path / "inputs") as worker:
        report = fuzz.fuzz(list(READERS), worker, inputs=10_000, seconds=seconds)
    kept = fuzz.keep(report, tmp_path / "found")
    assert not report.findings, f"{report}\n{kept}"
