"""Score tables in the published layout: one row a picture, its number, its path, one column a score.

    ,img_no,img_path,eyes_score,hair_color_score
    0,4,faces/000004.jpg,-0.2795,0.0774

The index column may be missing, an empty cell is a score that does not exist (NaN), and a name that ends in .gz is
compressed (docs/spec/properties.md, section 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ohlora.base.atomic import write_csv
from ohlora.base.tables import read_csv_rows
from ohlora.base.text import first_of, shown
from ohlora.errors import InvalidInputError

PROPERTY_COLUMNS = (
    "eyes_score",
    "hair_color_score",
    "hair_length_score",
    "mouth_score",
    "pose_score",
    "background_mean_score",
    "background_std_score",
)
NUMBER, PATH = "img_no", "img_path"
SHOWN = 5  # of what is wrong, in a message
MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True)
class ScoreTable:
    """Scores of N pictures.

    numbers: int64 [N], each once. columns: names of the C scores. values: float64 [N,C], NaN where there is none.
    paths: N texts, "" where unknown; leave it out where all are. Raises InvalidInputError for parts that do not fit
    together.
    """

    numbers: NDArray[np.int64]
    columns: tuple[str, ...]
    values: NDArray[np.float64]
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = np.asarray(self.numbers, dtype=np.int64)
        values = np.asarray(self.values, dtype=np.float64)
        paths = tuple(self.paths) or ("",) * len(numbers)
        if numbers.ndim != 1 or values.shape != (len(numbers), len(self.columns)) or len(paths) != len(numbers):
            raise InvalidInputError(
                f"a score table of {numbers.shape} numbers and {len(self.columns)} columns cannot have values of shape "
                f"{values.shape} and {len(paths)} paths"
            )
        if len(set(self.columns)) != len(self.columns):
            raise InvalidInputError(f"score columns must differ, got {', '.join(self.columns)}")
        unique, counts = np.unique(numbers, return_counts=True)
        if len(unique) != len(numbers):
            raise InvalidInputError(f"picture {unique[counts > 1][0]} has more than one row in a score table")
        for name, value in (("numbers", numbers), ("columns", tuple(self.columns)), ("values", values)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "paths", paths)

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, name: str) -> NDArray[np.float64]:
        """float64 [N]. Raises InvalidInputError naming the columns there are."""
        if name not in self.columns:
            raise InvalidInputError(
                f"no column '{name}' in this score table: it has {', '.join(self.columns) or 'none'}"
            )
        return self.values[:, self.columns.index(name)]

    def rows(self, numbers: ArrayLike) -> ScoreTable:
        """The rows of `numbers` (whole numbers [M]), in that order. Raises InvalidInputError naming missing numbers."""
        wanted = np.asarray(numbers, dtype=np.int64)
        place = {int(number): row for row, number in enumerate(self.numbers)}
        missing = [int(number) for number in wanted if int(number) not in place]
        if missing:
            shown = first_of(missing)
            raise InvalidInputError(
                f"no scores for {len(missing)} of {len(wanted)} pictures: number {shown}; score them first"
            )
        order = [place[int(number)] for number in wanted]
        values = self.values[np.array(order, dtype=np.intp)]
        return ScoreTable(wanted, self.columns, values, tuple(self.paths[row] for row in order))


def read_score_table(path: Path | str, columns: Sequence[str] | None = None) -> ScoreTable:
    """Read a .csv or .csv.gz table; of its score columns all, or those named.

    Raises InvalidInputError naming file, line and column: unreadable or damaged file, no `img_no` column, no such
    column, a row of another width, a cell that is not a finite number, a number that comes twice.
    """
    path = Path(path)
    rows = read_csv_rows(path)
    if not rows:
        raise InvalidInputError(f"{path} is empty: a score table starts with the line of its column names")
    header = [name.strip() for name in rows[0][1]]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InvalidInputError(f"{path} has column '{shown(repeated[0])}' more than once")
    if NUMBER not in header:
        raise InvalidInputError(
            f"{path} has no column '{NUMBER}' (it has {shown(', '.join(filter(None, header)), 200)}): no score table"
        )
    known = [name for name in header if name and name not in (NUMBER, PATH)]
    for name in columns or ():
        if name not in known:
            raise InvalidInputError(
                f"{path} has no column '{name}': it has {shown(', '.join(known), 200) or 'no scores'}"
            )
    names = tuple(known if columns is None else columns)
    number_at, path_at = header.index(NUMBER), header.index(PATH) if PATH in header else None
    taken = [header.index(name) for name in names]
    numbers = np.empty(len(rows) - 1, dtype=np.int64)
    values = np.empty((len(rows) - 1, len(names)), dtype=np.float64)
    paths: list[str] = []
    seen: dict[int, int] = {}
    for i, (line, row) in enumerate(rows[1:]):
        if len(row) != len(header):
            raise InvalidInputError(f"{path}, line {line}: {len(row)} cells, the header has {len(header)}")
        number = _whole(row[number_at], path, line)
        if number in seen:
            raise InvalidInputError(f"{path}, line {line}: picture {number} stands in line {seen[number]} already")
        seen[number] = line
        numbers[i] = number
        values[i] = [_number(row[at], path, line, name) for at, name in zip(taken, names, strict=True)]
        paths.append(row[path_at] if path_at is not None else "")
    return ScoreTable(numbers, names, values, tuple(paths))


def write_score_table(path: Path | str, table: ScoreTable, *, index: bool = True, decimals: int | None = 4) -> None:
    """Write a table atomically in the published layout; .gz is compressed, the same bytes for the same table.

    index: with the unnamed first column 0 .. N-1. decimals: None keeps every digit. NaN becomes an empty cell.
    Raises OutputError when it cannot be written, InvalidInputError for an infinite score.
    """
    rows: list[list[Any]] = [[*([""] if index else []), NUMBER, PATH, *table.columns]]
    for i, (number, source, row) in enumerate(zip(table.numbers.tolist(), table.paths, table.values, strict=True)):
        for name, value in zip(table.columns, row, strict=True):
            if math.isinf(value):
                raise InvalidInputError(f"{name} of picture {number} is infinite: not written to {path}")
        rows.append([*([i] if index else []), number, source, *(format_score(value, decimals) for value in row)])
    write_csv(path, rows)


def format_score(value: float, decimals: int | None) -> str:
    """A cell: rounded half to even on the binary value (docs/spec/properties.md, section 6), or exact; "" for NaN."""
    if math.isnan(value):
        return ""
    return repr(float(value) if decimals is None else round(float(value), decimals))


def _whole(cell: str, path: Path, line: int) -> int:
    if not (cell.isascii() and cell.isdigit()) or len(cell) > 20 or int(cell) > MAX_NUMBER:
        raise InvalidInputError(f"{path}, line {line}: {NUMBER} must be a whole number from 0, got '{shown(cell)}'")
    return int(cell)


def _number(cell: str, path: Path, line: int, name: str) -> float:
    if not cell.strip():
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInputError(
            f"{path}, line {line}, column '{shown(name)}': expected a number or an empty cell, got '{shown(cell)}'"
        )
    return value
