"""Labels as they are made: every answer is on disk before it is acknowledged.

The documented table (`ohlora.training.labels`) has complete rows only. What is not complete yet, and which pictures
were skipped, stands beside it in `TABLE.progress.json`; that file goes when nothing is left to say. Of a row that is in
both files (a process killed between writing the one and the other) the table's counts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ohlora.atomic import explain_os_error, make_folder, write_bytes
from ohlora.errors import BadRequest, OutputError
from ohlora.training.labels import Labels, layout_of, read_labels, write_labels

try:
    import fcntl
except ImportError:  # Windows: there, two servers on one table are not noticed
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
REMEMBERED = 10_000  # changes that can be undone
_SHOWN = 5
_log = logging.getLogger(__name__)

Row = dict[str, int]  # attribute -> 0 or 1


@dataclass(frozen=True)
class Cell:
    """A label and the revision that made it; value None: not labelled (any more)."""

    value: int | None
    revision: int


@dataclass(frozen=True)
class Change:
    """What a request did. before: the value until then; foreign: that was written by another tab since `seen`."""

    number: int
    attribute: str
    value: int | None
    before: int | None
    revision: int
    foreign: bool = False


class LabelStore:
    """The labels of one table. Use as a context manager; may be used from any thread.

    pictures: number -> file, those that are to be labelled. known: numbers that have a picture at all; rows of the
    table outside `pictures` are kept as they are. attributes: a documented set, in any order.
    Raises BadRequest for attributes without a documented table, a table of other attributes, labels of pictures that do
    not exist, a damaged progress file, and a table that another server is writing.
    """

    def __init__(
        self, pictures: Mapping[int, Path], attributes: Sequence[str], out: Path, known: Sequence[int] | None = None
    ) -> None:
        self.pictures, self.attributes, self.out = dict(pictures), tuple(attributes), Path(out)
        self._layout = layout_of(self.attributes)
        if not self.out.name.lower().endswith((".csv", ".csv.gz")):
            raise BadRequest(f"labels are written as .csv or .csv.gz, not {self.out.name}")
        make_folder(self.out.parent)
        self._progress = self.out.with_name(self.out.name + ".progress.json")
        self._mutex = threading.RLock()
        self.skipped: set[int] = set()
        self._lock = self._take_lock()
        try:
            self._rows: dict[int, Row] = self._read_table(set(self.pictures if known is None else known))
            self._read_progress()
        except BaseException:
            self.close()
            raise
        self.revision = 0
        self._cells: dict[tuple[int, str], Cell] = {}  # those changed since the start
        self._orders: dict[tuple[int, str], tuple[str, int]] = {}  # cell -> (client, order) of its last write
        self._history: list[tuple[str, Change]] = []
        self._signature = self._sign()
        self._skip_revision: dict[int, int] = {}

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other servers write the table. May be called again."""
        with self._mutex:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    # Reading

    def state(self) -> dict[str, Any]:
        """Everything a page needs to start: numbers, rows, skipped, revision."""
        with self._mutex:
            return {
                "numbers": list(self.pictures),
                "rows": {number: row for number, row in self._rows.items() if row and number in self.pictures},
                "skipped": sorted(self.skipped & self.pictures.keys()),
                "revision": self.revision,
            }

    def changes(self, since: int) -> dict[str, Any]:
        """What changed after revision `since`, by any tab."""
        with self._mutex:
            cells = [
                {"number": number, "attribute": attribute, "value": cell.value, "revision": cell.revision}
                for (number, attribute), cell in self._cells.items()
                if cell.revision > since
            ]
            skips = [
                {"number": number, "skipped": number in self.skipped}
                for number, revision in self._skip_revision.items()
                if revision > since
            ]
            return {"revision": self.revision, "cells": cells, "skips": skips}

    def summary(self) -> dict[str, Any]:
        """Counts for people: pictures, labelled, partly, skipped, and how many are 1 of each attribute."""
        with self._mutex:
            rows = [self._rows.get(number, {}) for number in self.pictures]
            whole = [row for row in rows if self._complete(row)]
            return {
                "out": str(self.out),
                "pictures": len(rows),
                "labelled": len(whole),
                "partly": sum(bool(row) for row in rows) - len(whole),
                "skipped": len(self.skipped & self.pictures.keys()),
                "ones": {name: sum(row[name] for row in whole) for name in self.attributes},
            }

    # Writing

    def label(
        self, client: str, order: int, number: int, attribute: str, value: int | None, seen: int | None = None
    ) -> Change:
        """Set one cell; value None clears it. On disk when this returns. The last write of a cell wins.

        client, order: a tab and its running number of requests; of two writes of a cell by one tab the one of the
        higher order wins, in whatever order they arrive. seen: the revision up to which the tab knows changes; a value
        that another tab wrote after it is reported as `foreign`.
        Raises BadRequest for an unknown picture, attribute or value, OutputError when it cannot be written (then
        nothing has changed).
        """
        with self._mutex:
            self._require(number)
            if attribute not in self.attributes:
                raise BadRequest(f"{attribute!r} is not asked here: {', '.join(self.attributes)}")
            if isinstance(value, bool) or value not in (None, 0, 1):
                raise BadRequest(f"a label is 0, 1 or null, got {value!r}")
            key = (number, attribute)
            before = self._rows.get(number, {}).get(attribute)
            last = self._orders.get(key)
            if last is not None and last[0] == client and last[1] > order:
                return Change(number, attribute, before, before, self.revision)
            other = last is not None and last[0] != client
            foreign = other and seen is not None and self._cells[key].revision > seen and before not in (None, value)
            change = self._apply(number, attribute, value)
            self._orders[key] = (client, order)
            if change.value != change.before:
                self._history.append((client, change))
                del self._history[:-REMEMBERED]
            return Change(number, attribute, value, before, self.revision, bool(foreign))

    def undo(self, client: str) -> Change | None:
        """Take back the last change of this tab that nobody has changed since; None when there is none."""
        with self._mutex:
            for at in range(len(self._history) - 1, -1, -1):
                owner, change = self._history[at]
                if owner != client:
                    continue
                cell = self._cells[change.number, change.attribute]
                if cell.revision == change.revision:
                    undone = self._apply(change.number, change.attribute, change.before)
                    del self._history[at]
                    self._reclaim(client, change, undone.revision)
                    return undone
                del self._history[at]
            return None

    def _reclaim(self, client: str, undone: Change, revision: int) -> None:
        """The change before the undone one made the value that stands again: it can be undone next."""
        for at in range(len(self._history) - 1, -1, -1):
            owner, change = self._history[at]
            if (change.number, change.attribute) == (undone.number, undone.attribute):
                if owner == client and change.value == undone.before:
                    self._history[at] = (owner, replace(change, revision=revision))
                return

    def skip(self, number: int, skipped: bool) -> None:
        """Put a picture off, or take it up again. Raises BadRequest, OutputError."""
        with self._mutex:
            self._require(number)
            changed = self.skipped ^ {number} if (number in self.skipped) != skipped else set(self.skipped)
            self._write_progress(self._rows, changed)
            self.skipped = changed
            self.revision += 1
            self._skip_revision[number] = self.revision

    # Inside

    def _complete(self, row: Mapping[str, int]) -> bool:
        return len(row) == len(self.attributes)

    def _require(self, number: Any) -> None:
        if self._lock is None:
            raise OutputError("the labelling has ended: start the same command again")
        if isinstance(number, bool) or not isinstance(number, int) or number not in self.pictures:
            raise BadRequest(f"no picture {number!r} is labelled here")

    def _apply(self, number: int, attribute: str, value: int | None) -> Change:
        old = self._rows.get(number, {})
        row = {name: old[name] for name in self.attributes if name in old and name != attribute}
        if value is not None:
            row[attribute] = value
        rows = {**self._rows, number: row}
        skipped = self.skipped - {number} if self._complete(row) else self.skipped
        try:
            if self._complete(row):
                self._write_table(rows)
                self._write_progress(rows, skipped)
            else:
                # A row that leaves the table is in the progress file first: killed in between, none of it is lost.
                self._write_progress(rows, skipped)
                if self._complete(old):
                    self._write_table(rows)
        except BaseException:
            self._restore(old, row)
            raise
        self._rows, self.skipped = rows, skipped
        self.revision += 1
        self._cells[number, attribute] = Cell(value, self.revision)
        return Change(number, attribute, value, old.get(attribute), self.revision)

    def _restore(self, old: Row, row: Row) -> None:
        """After a failed write both files shall say what memory does, as far as that can be written."""
        with contextlib.suppress(OutputError):  # the first error is the one to report; later writes repair the files
            if self._complete(old) or self._complete(row):
                self._write_table(self._rows)
            self._write_progress(self._rows, self.skipped)

    def _write_table(self, rows: Mapping[int, Row]) -> None:
        if self._sign() != self._signature:
            raise OutputError(f"{self.out} was changed by another program: end this server and start it again")
        whole = {number: row for number, row in rows.items() if self._complete(row)}
        numbers = np.array(list(whole), dtype=np.int64)
        values = {name: np.array([row[name] for row in whole.values()], dtype=np.float64) for name in self.attributes}
        write_labels(self.out, Labels(numbers, values), self._layout)
        self._signature = self._sign()

    def _sign(self) -> tuple[int, int] | None:
        try:
            info = self.out.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explain_os_error(self.out, error) from error
        return info.st_mtime_ns, info.st_size

    def _write_progress(self, rows: Mapping[int, Row], skipped: set[int]) -> None:
        partial = {str(number): row for number, row in sorted(rows.items()) if row and not self._complete(row)}
        if not partial and not skipped:
            try:
                self._progress.unlink(missing_ok=True)
            except OSError as error:
                raise explain_os_error(self._progress, error) from error
            return
        content = {
            "format": FORMAT,
            "attributes": list(self.attributes),
            "partial": partial,
            "skipped": sorted(skipped),
        }
        write_bytes(self._progress, (json.dumps(content) + "\n").encode())

    def _read_table(self, known: set[int]) -> dict[int, Row]:
        if not self.out.exists():
            return {}
        labels = read_labels(self.out)
        if set(labels.attributes) != set(self.attributes):
            raise BadRequest(
                f"{self.out} holds labels of {', '.join(labels.attributes)}, asked are {', '.join(self.attributes)}: "
                "choose another --out"
            )
        foreign = sorted(set(labels.numbers.tolist()) - known)
        if foreign:
            shown = ", ".join(map(str, foreign[:_SHOWN])) + (" ..." if len(foreign) > _SHOWN else "")
            raise BadRequest(
                f"{self.out} has labels of {len(foreign)} pictures that are not in the folder ({shown}): "
                "name their folder or choose another --out"
            )
        return {
            int(number): {name: int(labels.of(name)[at]) for name in self.attributes}
            for at, number in enumerate(labels.numbers)
        }

    def _read_progress(self) -> None:
        try:
            content = json.loads(self._progress.read_bytes())
            if content["format"] != FORMAT or set(content["attributes"]) != set(self.attributes):
                raise ValueError("it is of another format or other attributes")
            partial = {int(number): dict(row) for number, row in content["partial"].items()}
            if any(set(row) - set(self.attributes) or set(row.values()) - {0, 1} for row in partial.values()):
                raise ValueError("it has labels that are none")
            skipped = {int(number) for number in content["skipped"]}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadRequest(
                f"cannot use {self._progress}: {error}; delete it (the table itself stays) or choose another --out"
            ) from error
        for number, row in partial.items():
            if not self._complete(self._rows.get(number, {})):
                self._rows[number] = row
        self.skipped = {number for number in skipped if not self._complete(self._rows.get(number, {}))}

    def _take_lock(self) -> int | None:
        path = self.out.with_name(f".{self.out.name}.lock")
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise explain_os_error(path, error) from error
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(lock)
                raise BadRequest(
                    f"{self.out} is being labelled by another `ohlora train label`: use its page, or end it first"
                ) from error
            except OSError as error:  # some network file systems have no locks
                _log.warning("%s cannot be locked (%s): start no second server on it", path, error.strerror)
        return lock
