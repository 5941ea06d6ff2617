"""Logs of a training: tables (CSV) and rows (JSON) that grow while it runs and are cut back where it resumes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.base.atomic import explain_os_error, write_bytes, write_csv


class CsvLog:
    """A table that grows by rows, with an index column first as in the documented logs; cells as in `csv_line`."""

    def __init__(self, path: Path, columns: Sequence[str], decimals: int = 4, write: bool = True) -> None:
        self.path, self.columns, self.decimals, self.write = path, tuple(columns), decimals, write
        self.count = 0

    def append(self, row: Mapping[str, Any]) -> None:
        """One row more: {column: value} with all of the columns. Raises OutputError; then the row is not there."""
        text = csv_line(["", *self.columns]) if not self.count else ""
        text += csv_line([self.count, *(row[name] for name in self.columns)], self.decimals)
        self.count += 1
        if self.write:
            append_text(self.path, text, afresh=self.count == 1)

    def cut(self, count: int) -> None:
        """Keep the first `count` rows: what comes after them is written again by the resumed run."""
        self.count = count
        if not self.write or not self.path.is_file():
            return
        lines = self.path.read_text().splitlines(keepends=True)
        if len(lines) > count + 1 or (lines and not lines[-1].endswith("\n")):
            write_bytes(self.path, "".join(lines[: count + 1] if count else []).encode())


def csv_line(cells: Iterable[Any], decimals: int | None = 4) -> str:
    """One line of a table; floats are rounded to `decimals` places (None: every digit), None and NaN are empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([_cell(cell, decimals) for cell in cells])
    return text.getvalue()


def _cell(value: Any, decimals: int | None) -> Any:
    if not isinstance(value, float | np.floating):
        return value
    number = float(value)
    return "" if math.isnan(number) else number if decimals is None else round(number, decimals)


def write_table(path: Path, header: Iterable[Any], rows: Iterable[Iterable[Any]], decimals: int | None = 4) -> None:
    """A CSV file, atomically; cells as in `csv_line`."""
    write_csv(path, [header, *([_cell(cell, decimals) for cell in row] for row in rows)])


def append_text(path: Path, text: str, *, afresh: bool = False) -> None:
    """Write at the end of a file, or `afresh`. Raises OutputError; then the file is as before."""
    size = path.stat().st_size if not afresh and path.is_file() else 0
    try:
        with path.open("r+b" if size else "wb") as file:
            file.seek(size)
            file.write(text.encode())
    except OSError as error:
        try:
            with path.open("r+b") as file:
                file.truncate(size)
        except OSError:
            pass  # a resumed run cuts the torn row away
        raise explain_os_error(path, error) from error


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """One JSON row more. A row cut short by a kill is dropped by `read_rows`. Raises OutputError."""
    append_text(path, json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of JSON rows, without a half-written one; none when there is no file."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A file of JSON rows, atomically."""
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
