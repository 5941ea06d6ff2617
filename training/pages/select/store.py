"""Which faces are kept, under which names: every decision is on disk before it is acknowledged.

`selection.json` has every decision and is written last: what it says counts. The tables are made from it, and made
again at the start, so that a process killed between the files leaves nothing that does not fit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ohlora.base.atomic import make_folder, write_json
from ohlora.base.text import first_of
from ohlora.bundle.gallery import is_face_name
from ohlora.errors import InvalidInputError, OutputError
from ohlora.training.pages.local.cells import CellStore, Change, read_decisions
from ohlora.training.pages.select.report import Case, Report
from ohlora.training.pages.select.tables import tables_in, write_tables

FORMAT = 1
FILE_NAME = "selection.json"
KEEP, DROP = "keep", "drop"
DECISION, NAME = "decision", "name"

Row = dict[str, str]  # attribute -> text


class SelectionStore(CellStore[str]):
    """The decisions about the cases of one report. Use as a context manager; may be used from any thread.

    shown: the cases that are asked about, in this order; decisions about others are kept as they are. restart: begin
    without the decisions that `out` holds.
    Raises InvalidInputError for a selection of another report, a damaged one, tables without their selection, and a
    folder that another process is writing; OutputError.
    """

    activity = "selection"

    def __init__(self, report: Report, shown: Sequence[int], out: Path | str, restart: bool = False) -> None:
        self.report, self.out, self._restart = report, Path(out), restart
        make_folder(self.out)
        self._file = self.out / FILE_NAME
        super().__init__(self._file, shown)

    # Reading

    def summary(self) -> dict[str, Any]:
        """How many cases are shown, dropped and open, and which are kept (those that are not shown too)."""
        with self._mutex:
            decisions = [self._rows.get(number, {}).get(DECISION) for number in self.shown]
            return {
                "out": str(self.out),
                "cases": len(decisions),
                "dropped": decisions.count(DROP),
                "open": decisions.count(None),
                "kept": sorted(self._kept(self._rows)),
            }

    # Writing

    def decide(self, client: str, order: int, number: int, value: str | None, seen: int | None = None) -> Change[str]:
        """Keep or drop a face; None: not decided. On disk when this returns. client, order, seen: see `CellStore`.

        Raises InvalidInputError for an unknown case or decision, OutputError when it cannot be written (then nothing
        changed).
        """
        with self._mutex:
            self._require_case(number)
            if value not in (None, KEEP, DROP):
                raise InvalidInputError(f"a decision is {KEEP}, {DROP} or null, got {value!r}")
            return self._set(client, order, number, DECISION, value, seen)

    def rename(self, client: str, order: int, number: int, value: str | None, seen: int | None = None) -> Change[str]:
        """Name a face in the gallery; None or "" gives the name of its case back. As `decide`, and
        raises InvalidInputError for a name that a gallery cannot have or another case has.
        """
        with self._mutex:
            case = self._require_case(number)
            if not (value is None or isinstance(value, str)):
                raise InvalidInputError(f"a name is a text or null, got {value!r}")
            name = (value or "").strip()
            if name in ("", case.name):
                return self._set(client, order, number, NAME, None, seen)
            self._require_name(number, name)
            return self._set(client, order, number, NAME, name, seen)

    def choose(self, numbers: Sequence[int]) -> None:
        """Keep exactly these of the shown cases and drop the others, without a page. Names stay.

        Raises InvalidInputError when decisions were made already and they keep other faces.
        """
        with self._mutex:
            for number in numbers:
                self._require_case(number)
            before = sorted(self._kept(self._rows))
            if any(DECISION in row for row in self._rows.values()) and before != sorted(set(numbers)):
                raise InvalidInputError(
                    f"{self.out} keeps other faces already ({first_of(before) or 'none'}): choose another --out, or "
                    "--restart to forget them"
                )
            rows = dict(self._rows)
            for number in self.shown:
                rows[number] = {**rows.get(number, {}), DECISION: KEEP if number in numbers else DROP}
            self._save(rows)

    # Inside

    def _require_case(self, number: Any) -> Case:
        self._require(number, self.report.cases, f"{self.report.folder} has no case {number!r}")
        if number not in self.shown:
            raise InvalidInputError(f"case {number} did not pass the test: choose with --all to decide about it")
        return self.report.cases[number]

    def _require_name(self, number: int, name: str) -> None:
        if not is_face_name(name):
            raise InvalidInputError(
                f"the name {name!r} cannot be used: letters, digits, spaces and _ . ( ) - only, at most 100"
            )
        for other, case in self.report.cases.items():
            if other == number:
                continue
            # By case too: names become files, and some file systems see no difference.
            if name.casefold() in (case.name.casefold(), self._rows.get(other, {}).get(NAME, "").casefold()):
                raise InvalidInputError(f"the name {name!r} is that of case {other}: choose another")

    def _write(self, number: int, attribute: str, value: str | None) -> None:
        if attribute == NAME and value is not None:  # undo may bring a name back that another case has by now
            self._require_name(number, value)
        row = self._without(number, attribute)
        if value is not None:
            row[attribute] = value
        self._save({**self._rows, number: row})

    def _save(self, rows: dict[int, Row]) -> None:
        kept, before = self._kept(rows), self._kept(self._rows)
        try:
            if kept != before:
                write_tables(self.out, self.report, kept)
            self._commit(rows)
        except BaseException:
            # As far as that can be written; the first error is the one to report, and the next start repairs the rest.
            with contextlib.suppress(OutputError):
                if kept != before:
                    write_tables(self.out, self.report, before)
            raise
        self._rows = rows

    def _kept(self, rows: Mapping[int, Row]) -> dict[int, str]:
        """Case -> name of the faces that are kept."""
        return {
            number: row.get(NAME, self.report.cases[number].name)
            for number, row in rows.items()
            if row.get(DECISION) == KEEP
        }

    def _commit(self, rows: Mapping[int, Row]) -> None:
        faces = {
            str(number): {**row, "code": self.report.cases[number].fingerprint}
            for number, row in sorted(rows.items())
            if row
        }
        content = {"format": FORMAT, "space": self.report.space, "faces": faces}
        write_json(self._file, content, ensure_ascii=False)

    def _read(self) -> dict[int, Row]:
        self._refuse_foreign_tables()
        remedy = "choose another --out, or --restart to begin anew"
        rows = {} if self._restart else read_decisions(self._file, self._parsed, remedy) or {}
        # Decisions before tables: killed in between, nothing old comes back, and no table stands without them.
        if self._restart or not self._file.exists():
            self._commit(rows)
        write_tables(self.out, self.report, self._kept(rows))
        return rows

    def _parsed(self, content: Any) -> dict[int, Row]:
        if content["format"] != FORMAT:
            raise ValueError(f"it is of format {content['format']!r}")
        space, rows = content["space"], {int(number): dict(row) for number, row in content["faces"].items()}
        codes = {number: row.pop("code") for number, row in rows.items()}
        for row in rows.values():
            if set(row) - {DECISION, NAME} or row.get(DECISION, KEEP) not in (KEEP, DROP):
                raise ValueError("it has decisions that are none")
            if not is_face_name(row.get(NAME, "x")):
                raise ValueError("it has names that cannot be used")
        self._require_report(space, codes)
        names = [name.casefold() for name in self._kept(rows).values()]
        if len(set(names)) != len(names):
            raise InvalidInputError(f"{self._file} names two faces alike: correct it, or --restart to begin anew")
        return rows

    def _require_report(self, space: str, codes: Mapping[int, str]) -> None:
        cases = self.report.cases
        foreign = [number for number, code in codes.items() if number not in cases or cases[number].fingerprint != code]
        if foreign or space != self.report.space:
            raise InvalidInputError(
                f"{self._file} is a selection from another report (space {space!r}; {len(foreign)} of its faces are "
                f"others here: case {first_of(foreign) or 'none'}): choose another --out, or --restart to begin anew"
            )

    def _refuse_foreign_tables(self) -> None:
        if self._file.exists():
            return
        for path in tables_in(self.out):
            if path.exists():
                raise InvalidInputError(
                    f"{path} was not made by `ohlora train select` (no {FILE_NAME} beside it): choose another --out"
                )
