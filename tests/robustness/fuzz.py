"""The seeded fuzzer: changed inputs for every reader, each read in a process that may crash, hang or run out of memory.

    python -m tests.robustness.fuzz --inputs 10000 --seconds 600 --keep FOLDER [--reader NAME ...]

Input n of a reader is the same in every run. Findings are reduced, and written to FOLDER as
READER/ERROR-PLACE/FILE: below tests/robustness/cases the default suite replays them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.robustness.mutations import mutate
from tests.robustness.readers import READERS, Files, Reader, changeable

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).resolve().parent / "cases"
HANG_SECONDS = 30.0
START_SECONDS = 120.0  # of the first input of a reader, which imports its libraries
GOOD = ("read", "refused")
LONGEST_FILE = 1 << 20


@dataclass(frozen=True)
class Finding:
    """An input that did something else than to be read or refused."""

    reader: str
    file: str
    data: bytes
    answer: dict[str, Any]

    @property
    def key(self) -> tuple[str, ...]:
        return (self.reader, *(str(self.answer.get(name, "")) for name in ("outcome", "error", "where")))

    def __str__(self) -> str:
        return f"{' '.join(self.key)}: {self.answer.get('message', '')!r} ({self.file}, {len(self.data)} bytes)"


@dataclass
class Report:
    """What became of the inputs: how many of each outcome by reader, findings by key, the longest seconds."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    findings: dict[tuple[str, ...], Finding] = field(default_factory=dict)
    slowest: tuple[float, str] = (0.0, "")

    @property
    def inputs(self) -> int:
        return sum(sum(counts.values()) for counts in self.outcomes.values())

    def __str__(self) -> str:
        lines = [f"{name}: {dict(counts)}" for name, counts in self.outcomes.items()]
        found = [str(finding) for finding in self.findings.values()]
        return "\n".join([*lines, f"{self.inputs} inputs; slowest {self.slowest[0]:.1f} s ({self.slowest[1]})", *found])


class Worker:
    """The process that reads; begun again after one that crashed or hung."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._process, self._warm = scratch, None, set[str]()
        self._number = 0

    def read(self, reader: Reader, files: Files) -> dict[str, Any]:
        """The answer for these files: of the process, or a "crash" or "hang" of it."""
        self._number += 1
        folder = self._scratch / str(self._number)
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        try:
            return self._ask(reader.name, folder)
        finally:
            shutil.rmtree(folder)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._warm = set()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, reader: str, folder: Path) -> dict[str, Any]:
        process = self._process or self._started()
        limit = HANG_SECONDS if reader in self._warm else START_SECONDS
        process.stdin.write(json.dumps({"reader": reader, "folder": str(folder)}).encode() + b"\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            ready = selector.select(limit)
        line = process.stdout.readline() if ready else b""
        if line:
            self._warm.add(reader)
            answer: dict[str, Any] = json.loads(line)
            return answer
        if not ready:
            self.close()
            return {"outcome": "hang", "message": f"no answer in {limit:.0f} s"}
        status = process.wait()
        self.close()
        return {"outcome": "crash", "error": f"status {status}"}

    def _started(self) -> Any:
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.robustness.worker"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )  # fmt: skip
        return self._process


def variant(reader: Reader, inputs: Sequence[Files], number: int) -> tuple[Files, str]:
    """Changed input `number` of a reader, and the name of the file that was changed."""
    rng = random.Random(f"{reader.name} {number}")
    files = rng.choice(inputs)
    name = rng.choice(list(changeable(reader, files)))
    other = rng.choice([data for given in inputs for data in given.values()])
    return {**files, name: mutate(files[name], rng, other)[:LONGEST_FILE]}, name


def fuzz(
    names: Sequence[str], worker: Worker, *, inputs: int, seconds: float = float("inf"), reduced: bool = True
) -> Report:
    """Read `inputs` changed inputs of the readers, in turn, or as many as `seconds` allow.

    Raises AssertionError when a reader does not accept its own inputs: it would then be tested for nothing.
    """
    report, end = Report(), time.monotonic() + seconds
    given = {name: READERS[name].inputs() for name in names}
    for name in names:
        for files in given[name]:
            answer = worker.read(READERS[name], files)
            assert answer["outcome"] == "read", f"{name} does not read its own input {list(files)}: {answer}"
    # Readers after each other, in rounds: a time budget that ends early has met all of them.
    block = max(1, inputs // len(names) // 10)
    for start in range(0, -(-inputs // len(names)), block):
        for name in names:
            for number in range(start, min(start + block, -(-inputs // len(names)))):
                if time.monotonic() > end:
                    return report
                _try(READERS[name], given[name], number, worker, report, reduced)
    return report


def _try(reader: Reader, inputs: Sequence[Files], number: int, worker: Worker, report: Report, reduced: bool) -> None:
    files, changed = variant(reader, inputs, number)
    begun = time.monotonic()
    answer = worker.read(reader, files)
    report.slowest = max(report.slowest, (time.monotonic() - begun, f"{reader.name} {number}"))
    report.outcomes.setdefault(reader.name, Counter())[answer["outcome"]] += 1
    if answer["outcome"] in GOOD:
        return
    finding = Finding(reader.name, changed, files[changed], answer)
    if finding.key not in report.findings:
        report.findings[finding.key] = _reduce(finding, reader, files, worker) if reduced else finding


def _reduce(finding: Finding, reader: Reader, files: Files, worker: Worker, tries: int = 150) -> Finding:
    """The finding with pieces left out that it does not need. Hangs are left as they are: each try would be one."""
    data, size = finding.data, max(1, len(finding.data) // 2)
    while finding.answer["outcome"] != "hang" and tries > 0 and size:
        at = 0
        while at < len(data) and tries > 0:
            tries -= 1
            shorter = data[:at] + data[at + size :]
            answer = worker.read(reader, {**files, finding.file: shorter})
            if Finding(finding.reader, finding.file, shorter, answer).key == finding.key:
                data = shorter
            else:
                at += size
        size //= 2
    return Finding(finding.reader, finding.file, data, finding.answer)


def keep(report: Report, folder: Path) -> list[Path]:
    """Write the findings of a report, each as a case."""
    paths = []
    for finding in report.findings.values():
        label = "-".join(str(finding.answer.get(name, "")) for name in ("outcome", "error", "where")).strip("-")
        path = folder / finding.reader / "".join(c if c.isalnum() or c in "-_" else "_" for c in label) / finding.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(finding.data)
        paths.append(path)
    return paths


def cases() -> list[Path]:
    """The kept ones: READER/WHAT/FILE."""
    return sorted(path for path in CASES.rglob("*") if path.is_file())


def read_case(path: Path, worker: Worker) -> dict[str, Any]:
    """The answer for a kept file, among the other files of the input that it was made from."""
    name, _, *parts = path.relative_to(CASES).parts
    file = "/".join(parts)
    reader = READERS[name]
    files = next((files for files in reader.inputs() if file in files), {})
    return worker.read(reader, {**files, file: path.read_bytes()})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--reader", action="append", choices=list(READERS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Worker(Path(scratch)) as worker:
        report = fuzz(given.reader or list(READERS), worker, inputs=given.inputs, seconds=given.seconds)
    print(report)
    for finding in report.findings.values():
        print(finding.answer.get("trace", ""))
    if given.keep:
        keep(report, given.keep)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
