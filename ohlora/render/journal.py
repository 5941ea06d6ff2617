"""The record that makes a killed job resumable.

A job's folder holds, beside the outputs:

    .ohlora/job.json        what was asked: the request as canonical JSON, and its SHA-256
    .ohlora/journal.jsonl   one line per finished output, appended as soon as the output is in place:
                            {"item": 7, "row": {...metadata...}, "check": "1f0a9c3e"}, or "error": "..." for "row";
                            the check is the CRC-32 of the line without it (folders begun before have none)
    .ohlora/lock            held while a process writes to the folder
    metadata.jsonl          the rows in item order, written when the job ends

A line counts once it ends in a newline. So a kill can cost the last output, never more, and metadata made
from the journal do not depend on the order in which outputs were finished, nor on how often the job was
interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from ohlora.base.atomic import (
    FileLock,
    atomic_path,
    explain_os_error,
    lock_file,
    make_folder,
    open_file,
    remove_leftovers,
    write_bytes,
)  # fmt: skip
from ohlora.base.closing import Closing
from ohlora.base.reading import why_not
from ohlora.errors import InvalidInputError, OutputError, PlaceError

RECORD_FOLDER = ".ohlora"
METADATA_NAME = "metadata.jsonl"
SYNC_SECONDS = 1.0
_FORMAT = 1
_SHOWN_DIFFERENCES = 3

Row = dict[str, Any]
# Engine labels of folders begun by versions before this one: openvino-f32, onnxruntime-int8+f16, torch-f16 on cuda ...
_CHECK = re.compile(rb', "check": "([0-9a-f]{8})"\}\n?\Z')
_OLD_LABEL = re.compile(r"(?<=[-+])f(?=(?:16|32)\b)")


class Journal(Closing):
    """What is finished in one output folder. Made by `Journal.open`; a context manager that closes itself.

    `record`, `record_failure` and reading may be called from any thread. Rows stay on disk: memory holds one
    number per finished item.
    """

    def __init__(self, folder: Path, lock: FileLock, settings: Mapping[str, Any] | None = None) -> None:
        """Not for callers: use `Journal.open`, which checks the request and takes the lock."""
        self.folder = folder
        self.settings = dict(settings or {})
        self._path = folder / RECORD_FOLDER / "journal.jsonl"
        self._lock = lock
        self._mutex = threading.RLock()
        self._offsets: dict[int, int] = {}  # item -> where its line starts
        self._failures: dict[int, str] = {}
        self._unusable = 0  # lines
        self._broken: OutputError | None = None
        self._closed = False
        with _explained(self._path):
            self._file = open_file(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self._reader = os.fdopen(open_file(self._path, os.O_RDONLY), "rb")
            self._size = self._load()
        self._synced = time.monotonic()

    @classmethod
    def open(
        cls,
        folder: Path | str,
        request: Mapping[str, Any],
        *,
        restart: bool = False,
        former: Mapping[str, Any] | None = None,
    ) -> Journal:
        """Start or resume the job `request` in `folder`, which is created where needed.

        request: everything that decides what the outputs are, as JSON values; equal requests resume each
        other. restart: forget what was recorded, and take the folder over from another job. Outputs stay
        until they are written again; metadata.jsonl, which would no longer be true, is removed.
        former: settings that earlier versions did not have -> what they did. A folder whose record lacks them is
        resumed so, whatever `request` says; `settings` tells which values are in force.

        Raises InvalidInputError when the folder belongs to another request, when its record is damaged, and when
        another process is writing to it; OutputError when the folder cannot be written.
        """
        folder = make_folder(folder)
        record = make_folder(folder / RECORD_FOLDER)
        if record.is_symlink():
            raise PlaceError(f"cannot use {record}: a link stands in its place: move it away")
        settings = {name: request[name] for name in former or {}}
        text = _canonical(request)
        lock = lock_file(record / "lock", folder)
        try:
            job = record / "job.json"
            if restart:
                # The journal goes first: killed in between, the folder is still the old job's, with nothing
                # done.
                for stale in (record / "journal.jsonl", job, folder / METADATA_NAME):
                    _remove(stale)
            if os.path.lexists(job):
                absent = _require_same_request(job, folder, request, former or {})
                settings |= {name: value for name, value in (former or {}).items() if name in absent}
                remove_leftovers(folder)
                remove_leftovers(record)
            else:
                _remove(record / "journal.jsonl")  # of a job whose request is not known any more
                write_bytes(job, _job_record(text))
            return cls(folder, lock, settings)
        except BaseException:
            lock.close()
            raise

    # Reading

    @property
    def finished(self) -> Mapping[int, Row]:
        """Item -> metadata row, in item order; a live view that reads each row from disk."""
        return _FinishedRows(self._offsets, self._row)

    @property
    def failed(self) -> dict[int, str]:
        """Item -> message of the last attempt, in item order, for items without a finished output."""
        with self._mutex:
            return dict(sorted(self._failures.items()))

    def verify(self, row: Mapping[str, Any]) -> bool:
        """Whether the file that `row` names is still there: `file_name` below the folder, `bytes` long."""
        name, size = row.get("file_name"), row.get("bytes")
        if not is_inside(name) or not isinstance(size, int):
            return False
        try:
            info = (self.folder / name).stat()
        except (OSError, ValueError):
            return False
        return stat.S_ISREG(info.st_mode) and info.st_size == size

    def pending(self, total: int) -> Collection[int]:
        """Items of range(total) still to do: never finished, failed, or finished with a file that is gone.

        Checks the finished files, and forgets the items that `verify` refuses. Takes no memory for what is left:
        the items are counted now and found while they are taken.
        """
        finished = [item for item in self.finished if item < total]
        gone = [item for item in finished if not self.verify(self._row(item))]
        for item in gone:
            self.forget(item)
        return _Pending(self._offsets, total, total - len(finished) + len(gone))

    def drop_foreign(self, total: int) -> int:
        """Forget items beyond range(total). Returns how many lines count for nothing: those, and all that are damaged
        or name a file outside the folder.
        """
        with self._mutex:
            for kept in (self._offsets, self._failures):
                foreign = [item for item in kept if item >= total]
                self._unusable += len(foreign)
                for item in foreign:
                    del kept[item]
            return self._unusable

    # Writing

    def record(self, item: int, row: Mapping[str, Any]) -> None:
        """Append that `item` is finished. Call it when the output is in place; an item's last record wins.

        row: its metadata as JSON values; key order is kept. Raises OutputError when the line cannot be
        written, TypeError or ValueError for values that JSON does not have, NaN among them.
        """
        self._append(item, {"item": _require_item(item), "row": dict(row)})

    def record_failure(self, item: int, message: str) -> None:
        """Append that `item` failed, which does not finish it: the next run tries again."""
        self._append(item, {"item": _require_item(item), "error": str(message)})

    def forget(self, item: int) -> None:
        """Count `item` as not finished until it is recorded again. In memory only: a resumed run verifies."""
        with self._mutex:
            self._offsets.pop(item, None)

    def finish(self, total: int | None = None) -> Path:
        """Write metadata.jsonl atomically from all finished rows, in item order, and return its path.

        total: how many items the job has; each must be finished or failed, else OutputError. None: a part of it.
        """
        with self._mutex:
            self.sync()
            left = (i for i in range(total or 0) if i not in self._offsets and i not in self._failures)
            if (first := next(left, None)) is not None:
                raise OutputError(
                    f"{1 + sum(1 for _ in left)} of {total} outputs in {self.folder} are missing, the first is item "
                    f"{first}: "
                    "run the same command again, it resumes"
                )
            path = self.folder / METADATA_NAME
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                for row in self.finished.values():
                    file.write(_json_line(row))
            return path

    def sync(self) -> None:
        """Have the operating system put all records on disk (a power failure then costs none of them)."""
        with self._mutex:
            if self._closed:
                return
            self._synced = time.monotonic()
            with _explained(self._path):
                os.fsync(self._file)

    def close(self) -> None:
        """Put all records on disk and let other processes write to the folder. May be called again."""
        with self._mutex:
            if self._closed:
                return
            try:
                self.sync()
            finally:
                self._closed = True
                self._reader.close()
                os.close(self._file)
                self._lock.close()

    # Inside

    def _load(self) -> int:
        """Read all lines, cut off a torn last one, and return the size that is left."""
        position = 0
        for line in self._reader:
            if not line.endswith(b"\n"):
                os.ftruncate(self._file, position)
                break
            # The item of a damaged line is made again: that costs one output, believing the line may cost the job.
            if (entry := _parse(line)) is None:
                self._unusable += 1
            else:
                self._note(entry, position)
            position += len(line)
        return position

    def _note(self, entry: Row, position: int) -> None:
        item = entry["item"]
        if "row" in entry:
            self._offsets[item] = position
            self._failures.pop(item, None)
        else:
            self._offsets.pop(item, None)
            self._failures[item] = entry["error"]

    def _append(self, item: int, entry: Row) -> None:
        line = _entry_line(entry)
        with self._mutex:
            if self._closed:
                raise ValueError(f"the journal of {self.folder} is closed")
            if self._broken is not None:
                raise self._broken
            self._write(line)
            self._note(entry, self._size)
            self._size += len(line)
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                self.sync()

    def _write(self, line: bytes) -> None:
        """Hand the line to the operating system: from then on a kill of this process cannot lose it."""
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            explained = explain_os_error(self._path, error)
            try:
                os.ftruncate(self._file, self._size)  # half a line would spoil the next one
            except OSError:
                self._broken = explained
            raise explained from error

    def _row(self, item: int) -> Row:
        """Raises KeyError."""
        with self._mutex:
            self._reader.seek(self._offsets[item])
            entry = _parse(self._reader.readline())
        if entry is None or entry["item"] != item:
            raise OutputError(f"{self._path} was changed while it was in use: run the same command again, it resumes")
        row: Row = entry["row"]
        return row


class _Pending(Collection[int]):
    """Items in rising order that are not finished; `count` of them when this was made."""

    def __init__(self, finished: Collection[int], total: int, count: int) -> None:
        self._finished, self._total, self._count = finished, total, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return (item for item in range(self._total) if item not in self._finished)

    def __contains__(self, item: object) -> bool:
        return item in range(self._total) and item not in self._finished


class _FinishedRows(Mapping[int, Row]):
    def __init__(self, offsets: dict[int, int], read: Callable[[int], Row]) -> None:
        self._offsets, self._read = offsets, read

    def __getitem__(self, item: int) -> Row:
        return self._read(item)

    def __contains__(self, item: object) -> bool:
        return item in self._offsets

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._offsets.copy()))

    def __len__(self) -> int:
        return len(self._offsets)


def _require_item(item: int) -> int:
    if isinstance(item, bool) or not isinstance(item, int) or item < 0:
        raise ValueError(f"an item is numbered 0, 1, 2 ..., got {item!r}")
    return item


def _json_line(value: Row) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        # A file name with undecodable bytes is a lone surrogate in Python; as an escape it survives.
        return json.dumps(value, allow_nan=False, separators=(", ", ": ")).encode() + b"\n"


def _entry_line(entry: Row) -> bytes:
    body = _json_line(entry)[:-1]
    return body[:-1] + f', "check": "{zlib.crc32(body):08x}"}}\n'.encode()


def _parse(line: bytes) -> Row | None:
    """The entry of a line; None for one that is damaged or names a file outside the folder."""
    if (check := _CHECK.search(line)) is not None:
        line = line[: check.start()] + b"}"
        if zlib.crc32(line) != int(check[1], 16):
            return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or isinstance(entry.get("item"), bool):
        return None
    if not isinstance(entry.get("item"), int) or entry["item"] < 0:
        return None
    if entry.keys() == {"item", "row"} and isinstance(row := entry["row"], dict):
        return {**entry, "row": _with_new_label(row)} if is_inside(row.get("file_name", "-")) else None
    return entry if entry.keys() == {"item", "error"} and isinstance(entry["error"], str) else None


def is_inside(name: object) -> TypeGuard[str]:
    """Whether a row's `file_name` names something below its folder."""
    if not isinstance(name, str) or not name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def read_entries(folder: Path) -> Iterator[Row | None]:
    """Of the journal in a job's folder, as they were written, an item's last one last; None for a damaged line.

    Raises InvalidInputError where there is none that can be read.
    """
    path = folder / RECORD_FOLDER / "journal.jsonl"
    try:
        with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
            yield from (_parse(line) for line in file if line.endswith(b"\n"))
    except (OSError, PlaceError) as error:
        reason = error if isinstance(error, PlaceError) else f"{path}: {why_not(error)}"
        raise InvalidInputError(f"no job can be read in {folder}: {reason}") from error


def read_request(folder: Path) -> Mapping[str, Any]:
    """What the job of a folder was asked for. Raises InvalidInputError where that cannot be read."""
    record = _read_job(folder / RECORD_FOLDER / "job.json")
    if record is None:
        raise InvalidInputError(f"the job record in {folder} is damaged or of another version")
    return record


def _read_job(job: Path) -> Mapping[str, Any] | None:
    """The request, None where the record is damaged. Raises InvalidInputError where it cannot be read."""
    try:
        with os.fdopen(open_file(job, os.O_RDONLY), "rb") as file:
            record = json.loads(file.read())
        intact = record == json.loads(_job_record(_canonical(record["request"])))
        return _with_new_label(record["request"]) if intact else None
    except PlaceError as error:
        raise InvalidInputError(str(error)) from error
    except OSError as error:
        raise InvalidInputError(f"cannot read {job}: {why_not(error)}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _with_new_label(record: Row) -> Row:
    """A row or request with its engine's precision spelled as now, so that both versions' are equal."""
    if isinstance(label := record.get("engine"), str):
        return {**record, "engine": _OLD_LABEL.sub("fp", label)}
    return record


def _canonical(request: Mapping[str, Any]) -> str:
    return json.dumps(dict(request), sort_keys=True, allow_nan=False, separators=(",", ":"))


def _job_record(canonical: str) -> bytes:
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return f'{{"format":{_FORMAT},"sha256":"{digest}","request":{canonical}}}\n'.encode()


def _require_same_request(job: Path, folder: Path, request: Mapping[str, Any], former: Mapping[str, Any]) -> set[str]:
    """Which settings of `former` the record lacks; the rest must be equal."""
    recorded = _read_job(job)
    if recorded is None:
        raise InvalidInputError(
            f"the job record {job} is damaged or of another version: choose another --out, "
            "or pass --restart to begin again in this folder"
        )
    absent = former.keys() - recorded.keys()
    wanted = _canonical({name: value for name, value in request.items() if name not in absent})
    if (known := _canonical(recorded)) != wanted:
        differences = list(_differences(json.loads(known), json.loads(wanted)))
        shown = "; ".join(differences[:_SHOWN_DIFFERENCES])
        more = len(differences) - _SHOWN_DIFFERENCES
        raise InvalidInputError(
            f"{folder} belongs to another job: {shown}{f'; and {more} more' if more > 0 else ''}. "
            "Choose another --out, or pass --restart to begin again in this folder"
        )
    return absent


_ABSENT = object()


def _differences(there: Any, asked: Any, key: str = "") -> Iterator[str]:
    """One text per differing leaf, keys dotted, in sorted order."""
    if isinstance(there, dict) and isinstance(asked, dict):
        for name in sorted(there.keys() | asked.keys()):
            yield from _differences(
                there.get(name, _ABSENT), asked.get(name, _ABSENT), f"{key}.{name}" if key else name
            )
    elif isinstance(there, list) and isinstance(asked, list) and len(there) == len(asked):
        for index, (one, other) in enumerate(zip(there, asked, strict=True)):
            yield from _differences(one, other, f"{key}[{index}]")
    elif type(there) is not type(asked) or there != asked:
        yield f"{key} is {_shown(there)} there and {_shown(asked)} now"


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "not set"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _remove(path: Path) -> None:
    with _explained(path):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explain_os_error(path, error) from error
