"""Look into the folder of a job without changing it: how far it is, and whether its files are still what they were."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ohlora.base.atomic import is_locked, open_file
from ohlora.bundle.files import file_sha256
from ohlora.errors import InvalidInputError, PlaceError
from ohlora.render.journal import METADATA_NAME, RECORD_FOLDER, is_inside, read_entries, read_request


@dataclass(frozen=True)
class JobStatus:
    """command: render, recolor or animate. running: by a process on this machine, as far as its lock can tell.

    unusable: lines of the journal that are damaged.
    """

    folder: str
    command: str
    finished: int
    failures: list[str]
    unusable: int
    running: bool

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "failed": len(self.failures)}


def job_status(folder: Path) -> JobStatus:
    """Raises InvalidInputError where `folder` holds no job that can be read."""
    request = read_request(folder)
    finished: set[int] = set()
    failures: dict[int, str] = {}
    unusable = 0
    for entry in read_entries(folder):
        if entry is None:
            unusable += 1
        elif "row" in entry:
            finished.add(entry["item"])
            failures.pop(entry["item"], None)
        else:
            finished.discard(entry["item"])
            failures[entry["item"]] = entry["error"]
    running = is_locked(folder / RECORD_FOLDER / "lock")
    messages = [failures[item] for item in sorted(failures)]
    return JobStatus(str(folder), str(request.get("command")), len(finished), messages, unusable, running)


def verify_job(folder: Path) -> tuple[int, list[str]]:
    """Compare files with the `bytes` and `sha256` of their rows in metadata.jsonl, of a job that was killed before it
    had one in the journal.

    Returns how many rows there were, and a message for each that is wrong. Nothing outside the folder is read.
    Raises InvalidInputError where `folder` holds no job.
    """
    checked, problems = 0, []
    for row in _rows(folder):
        checked += 1
        if (problem := _problem(folder, row)) is not None:
            problems.append(problem)
    return checked, problems


def _rows(folder: Path) -> Iterator[Any]:
    """None for a line that cannot be read."""
    try:
        metadata = os.fdopen(open_file(folder / METADATA_NAME, os.O_RDONLY), "rb")
    except FileNotFoundError:
        last = {entry["item"]: entry.get("row") for entry in read_entries(folder) if entry is not None}
        yield from (row for row in last.values() if row is not None)
        return
    except (OSError, PlaceError) as error:
        raise InvalidInputError(f"cannot read {folder / METADATA_NAME}: {error}") from error
    with metadata:
        for line in metadata:
            row = None
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
            yield row


def _problem(folder: Path, row: Any) -> str | None:
    if not isinstance(row, dict) or not is_inside(name := row.get("file_name")):
        return f"a row of {folder / METADATA_NAME} is damaged or names no file of the folder: {str(row)[:60]}"
    path = folder / name
    try:
        if not path.is_file():
            return f"{path} is missing"
        size = path.stat().st_size
        if size != row.get("bytes"):
            return f"{path} has {size} bytes, its metadata say {row.get('bytes')}"
        if file_sha256(path) != row.get("sha256"):
            return f"{path} is not the file that was written: its SHA-256 differs"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return f"cannot read {path}: {error}"
    return None
