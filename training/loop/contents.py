"""What the files hold that a run reads: hashed once, so that a resumed run tells changed data from moved or touched."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from ohlora.base.atomic import write_json
from ohlora.base.text import first_of
from ohlora.bundle.files import file_sha256
from ohlora.errors import InvalidInputError

Row = tuple[str, int, int, str]  # path, bytes, time of the last change in ns (0: too young to be trusted), sha256
SETTLED_NS = 2_000_000_000


class Contents:
    """Hashes of the files of a run, by what they are ("pictures").

    files: in the order that the run knows them; a file that is there several times counts once. record: JSON file of an
    earlier call, whose hashes count for files of the same path, size and time.
    Raises InvalidInputError naming a file that cannot be read.
    """

    def __init__(self, files: Mapping[str, Iterable[Path]], record: Path) -> None:
        self.record, self._before = record, _read(record)
        known = {row[0]: row for rows in self._before.values() for row in rows}
        self.rows = {what: [_row(path, known) for path in dict.fromkeys(paths)] for what, paths in files.items()}
        self.rows = {what: rows for what, rows in self.rows.items() if rows}

    @property
    def digests(self) -> dict[str, str]:
        """One hash for each kind of files. The name of a file counts where there are several of its kind."""
        return {what: _digest(rows) for what, rows in self.rows.items()}

    def difference(self, before: Mapping[str, str]) -> str:
        """What differs from the digests of an earlier call, in words; empty when nothing does.

        A kind that only one of them has is no difference: the other version does not know it yet, or any more.
        """
        for what, digest in self.digests.items():
            if before.get(what, digest) != digest:
                names = self._changed(what) if _digest(self._before.get(what, [])) == before[what] else []
                return f"with other {what}" + (f" ({len(names)} differ: {first_of(names)})" if names else "")
        return ""

    def write(self) -> None:
        """Keep the hashes for the next call. Raises OutputError."""
        if self.rows:
            write_json(self.record, self.rows, indent=None)

    def _changed(self, what: str) -> list[str]:
        """Names of the files that were added, removed or changed since `record` was written."""
        old, new = (
            {(Path(path).name, content) for path, _, _, content in rows}
            for rows in (self._before.get(what, []), self.rows[what])
        )
        return sorted({name for name, _ in old ^ new})


def _row(path: Path, known: Mapping[str, Row]) -> Row:
    try:
        status = path.stat()
        row = known.get(str(path.absolute()))
        if row is not None and row[1:3] == (status.st_size, status.st_mtime_ns):
            return row
        settled = time.time_ns() - status.st_mtime_ns > SETTLED_NS
        content = file_sha256(path)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}") from error
    return str(path.absolute()), status.st_size, status.st_mtime_ns if settled else 0, content


def _digest(rows: Iterable[Row]) -> str:
    contents = [(Path(path).name, content) for path, _, _, content in rows]
    if len(contents) == 1:
        return contents[0][1][:16]
    return hashlib.sha256("".join(f"{name} {content}\n" for name, content in contents).encode()).hexdigest()[:16]


def _read(record: Path) -> dict[str, list[Row]]:
    """The rows of an earlier call; none where they are missing or damaged, they only save time and name changes."""
    try:
        content = json.loads(record.read_bytes())
        return {
            str(what): [(str(path), int(size), int(changed), str(sha)) for path, size, changed, sha in rows]
            for what, rows in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
