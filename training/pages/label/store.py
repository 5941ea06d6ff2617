"""Labels as they are made: every answer is on disk before it is acknowledged.

The documented table (`ohlora.training.data.labels`) has complete rows only. What is not complete yet, and which
pictures were skipped, stands beside it in `TABLE.progress.json`; that file goes when nothing is left to say. Of a row
that is in both files (a process killed between writing the one and the other) the table's counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.base.atomic import explain_os_error, make_folder, write_json
from ohlora.base.text import first_of
from ohlora.errors import InvalidInputError, OutputError
from ohlora.training.data.labels import Labels, layout_of, read_labels, write_labels
from ohlora.training.pages.local.cells import CellStore, Change, read_decisions

FORMAT = 1

Row = dict[str, int]  # attribute -> 0 or 1


class LabelStore(CellStore[int]):
    """The labels of one table. Use as a context manager; may be used from any thread.

    pictures: number -> file, those that are to be labelled. known: numbers that have a picture at all; rows of the
    table outside `pictures` are kept as they are. attributes: a documented set, in any order.
    Raises InvalidInputError for attributes without a documented table, a table of other attributes, labels of pictures
    that do not exist, a damaged progress file, and a table that another server is writing.
    """

    activity = "labelling"

    def __init__(
        self, pictures: Mapping[int, Path], attributes: Sequence[str], out: Path, known: Sequence[int] | None = None
    ) -> None:
        self.pictures, self.attributes, self.out = dict(pictures), tuple(attributes), Path(out)
        self._layout = layout_of(self.attributes)
        if not self.out.name.lower().endswith((".csv", ".csv.gz")):
            raise InvalidInputError(f"labels are written as .csv or .csv.gz, not {self.out.name}")
        make_folder(self.out.parent)
        self._progress = self.out.with_name(self.out.name + ".progress.json")
        self._known = set(self.pictures if known is None else known)
        self.skipped: set[int] = set()
        self._skip_revision: dict[int, int] = {}
        super().__init__(self.out, self.pictures)
        self._signature = self._sign()

    # Reading

    def state(self) -> dict[str, Any]:
        with self._mutex:
            return super().state() | {"skipped": sorted(self.skipped & self.pictures.keys())}

    def changes(self, since: int) -> dict[str, Any]:
        """What changed after revision `since`, by any tab."""
        with self._mutex:
            skips = [
                {"number": number, "skipped": number in self.skipped}
                for number, revision in self._skip_revision.items()
                if revision > since
            ]
            return {**super().changes(since), "skips": skips}

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
    ) -> Change[int]:
        """Set one cell; value None clears it. On disk when this returns. For client, order and seen see `CellStore`.

        Raises InvalidInputError for an unknown picture, attribute or value, OutputError when it cannot be written (then
        nothing has changed).
        """
        with self._mutex:
            self._require(number, self.pictures, f"no picture {number!r} is labelled here")
            if attribute not in self.attributes:
                raise InvalidInputError(f"{attribute!r} is not asked here: {', '.join(self.attributes)}")
            if isinstance(value, bool) or value not in (None, 0, 1):
                raise InvalidInputError(f"a label is 0, 1 or null, got {value!r}")
            return self._set(client, order, number, attribute, value, seen)

    def skip(self, number: int, skipped: bool) -> None:
        """Put a picture off, or take it up again. Raises InvalidInputError, OutputError."""
        with self._mutex:
            self._require(number, self.pictures, f"no picture {number!r} is labelled here")
            changed = self.skipped ^ {number} if (number in self.skipped) != skipped else set(self.skipped)
            self._write_progress(self._rows, changed)
            self.skipped = changed
            self.revision += 1
            self._skip_revision[number] = self.revision

    # Inside

    def _complete(self, row: Mapping[str, int]) -> bool:
        return len(row) == len(self.attributes)

    def _write(self, number: int, attribute: str, value: int | None) -> None:
        old, row = self._rows.get(number, {}), self._without(number, attribute)
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
        write_json(self._progress, content, indent=None)

    def _read(self) -> dict[int, Row]:
        rows = self._read_table()
        partial, skipped = read_decisions(
            self._progress, self._parsed, "delete it (the table itself stays) or choose another --out"
        ) or ({}, set())
        rows |= {number: row for number, row in partial.items() if not self._complete(rows.get(number, {}))}
        self.skipped = {number for number in skipped if not self._complete(rows.get(number, {}))}
        return rows

    def _read_table(self) -> dict[int, Row]:
        if not self.out.exists():
            return {}
        labels = read_labels(self.out)
        if set(labels.attributes) != set(self.attributes):
            raise InvalidInputError(
                f"{self.out} holds labels of {', '.join(labels.attributes)}, asked are {', '.join(self.attributes)}: "
                "choose another --out"
            )
        foreign = sorted(set(labels.numbers.tolist()) - self._known)
        if foreign:
            raise InvalidInputError(
                f"{self.out} has labels of {len(foreign)} pictures that are not in the folder ({first_of(foreign)}): "
                "name their folder or choose another --out"
            )
        return {
            int(number): {name: int(labels.of(name)[at]) for name in self.attributes}
            for at, number in enumerate(labels.numbers)
        }

    def _parsed(self, content: Any) -> tuple[dict[int, Row], set[int]]:
        """Rows that are not complete, and pictures that were skipped, of the progress file."""
        if content["format"] != FORMAT or set(content["attributes"]) != set(self.attributes):
            raise ValueError("it is of another format or other attributes")
        partial = {int(number): dict(row) for number, row in content["partial"].items()}
        if any(set(row) - set(self.attributes) or set(row.values()) - {0, 1} for row in partial.values()):
            raise ValueError("it has labels that are none")
        return partial, {int(number) for number in content["skipped"]}
