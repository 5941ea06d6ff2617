"""What a stage made, by content: every file's size, time and sha256, and one hash over all of them.

A file whose size and time are those of the manifest is taken to be unchanged; any other is read again. So ten thousand
pictures are checked by looking at them, not by reading them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from ohlora.base.atomic import TEMPORARY_PREFIX
from ohlora.bundle.files import file_sha256
from ohlora.errors import OutputError

Entry = tuple[int, int, str]  # size, modification time in ns, sha256


@dataclass(frozen=True)
class Output:
    """A file, or the files of a folder that match `pattern` (not those below it).

    path: relative to the stage's folder. What the next stages see is the path; what they depend on is the content.
    """

    path: str
    pattern: str = ""

    def paths(self, stage: Path) -> list[Path]:
        """What belongs to it, sorted by name; nothing that a killed run left half written."""
        target = stage / self.path
        if not self.pattern:
            return [target]
        return sorted(p for p in target.glob(self.pattern) if p.is_file() and not p.name.startswith(TEMPORARY_PREFIX))


@dataclass(frozen=True)
class Manifest(Output):
    """The files of one output, by name (relative to the stage's folder)."""

    files: dict[str, Entry] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """One hash over names and contents; times do not count."""
        digest = hashlib.sha256()
        for name, (_, _, content) in sorted(self.files.items()):
            digest.update(f"{name}\0{content}\n".encode())
        return digest.hexdigest()


def describe(stage: Path, name: str, output: Output) -> Manifest:
    """Read everything of one output. Raises OutputError when a stage did not make what it says it makes."""
    files = output.paths(stage)
    if not files or not all(path.is_file() for path in files):
        raise OutputError(f"stage {stage.name} has not made its output '{name}' ({stage / output.path})")
    entries: dict[str, Entry] = {}
    for path in files:
        status = path.stat()
        entries[path.relative_to(stage).as_posix()] = (status.st_size, status.st_mtime_ns, file_sha256(path))
    return Manifest(output.path, output.pattern, entries)


def changed_file(stage: Path, manifest: Manifest) -> str | None:
    """The first file that is not as the manifest says: gone, other, or new among them; None when there is none."""
    there = {path.relative_to(stage).as_posix() for path in manifest.paths(stage) if path.is_file()}
    if different := sorted(there ^ set(manifest.files)):
        return different[0]
    for name, (size, time, content) in manifest.files.items():
        status = (stage / name).stat()
        if status.st_size != size:
            return name
        if status.st_mtime_ns != time and file_sha256(stage / name) != content:
            return name
    return None


def key_of(value: Any) -> str:
    """The hash of a JSON value, the same for equal ones."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
