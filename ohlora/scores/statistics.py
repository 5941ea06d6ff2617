"""Mean and deviation of every score of a run, stored so that other pictures can be normalised by them.

    algorithm,property,mean,std,ddof,count
    v2,eyes_score,7.1472398543122804,1.9314998601962869,1,60

Normalised scores of different runs can only be compared where one of them lent its figures to the other
(docs/spec/properties.md, section 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import write_csv
from ohlora.base.tables import read_csv_rows
from ohlora.base.text import shown
from ohlora.base.types import check_choice
from ohlora.errors import InvalidInputError, one_line
from ohlora.kernels.properties import ALGORITHMS, normalize, statistics
from ohlora.scores.table import MAX_NUMBER, ScoreTable, format_score

COLUMNS = ("algorithm", "property", "mean", "std", "ddof", "count")


@dataclass(frozen=True)
class ScoreStatistics:
    """Of the C columns of an algorithm. mean, std: float64 [C], NaN where there is none; counts: int64 [C] values."""

    algorithm: str
    columns: tuple[str, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    counts: NDArray[np.int64]
    ddof: int

    def normalized(self, table: ScoreTable, decimals: int | None = 4) -> ScoreTable:
        """z-scores of raw scores; NaN stays, and so becomes a column that did not vary."""
        values = normalize(table.values, mean=self.mean, std=self.std, decimals=decimals)
        return ScoreTable(table.numbers, table.columns, values, table.paths)


def score_columns(algorithm: str) -> tuple[str, ...]:
    """Column names of the published tables. Raises InvalidInputError naming the algorithms there are."""
    return tuple(f"{name}_score" for name in ALGORITHMS[check_choice("algorithm", algorithm, ALGORITHMS)])


def measure(algorithm: str, table: ScoreTable, ddof: int = 1) -> ScoreStatistics:
    """Figures of raw scores, without NaN. ddof: 1 as in all published tables, 0 as in the documents' example."""
    mean, deviation = statistics(table.values, ddof=ddof)
    counts = (~np.isnan(table.values)).sum(0)
    return ScoreStatistics(algorithm, table.columns, mean, deviation, counts, ddof)


def write_statistics(path: Path, figures: ScoreStatistics) -> None:
    """Write atomically with every digit."""
    rows: list[Sequence[Any]] = [COLUMNS]
    for i, column in enumerate(figures.columns):
        cells = (format_score(float(values[i]), None) for values in (figures.mean, figures.std))
        rows.append([figures.algorithm, column, *cells, figures.ddof, int(figures.counts[i])])
    write_csv(path, rows)


def read_statistics(path: Path) -> ScoreStatistics:
    """Raises InvalidInputError naming file and line for anything that is not the table of one algorithm."""
    rows = read_csv_rows(path)
    if not rows or tuple(rows[0][1]) != COLUMNS:
        raise InvalidInputError(f"{path} is no table of score statistics: its first line must be {','.join(COLUMNS)}")
    algorithms = {row[0] for _, row in rows[1:]}
    if len(algorithms) != 1:
        raise InvalidInputError(
            f"{path} must hold the figures of one algorithm, it has {shown(', '.join(sorted(algorithms))) or 'none'}"
        )
    algorithm = algorithms.pop()
    columns = score_columns(algorithm)
    for line, row in rows[1:]:
        if len(row) != len(COLUMNS):
            raise InvalidInputError(f"{path}, line {line}: {len(row)} cells, the header has {len(COLUMNS)}")
    if tuple(row[1] for _, row in rows[1:]) != columns:
        raise InvalidInputError(f"{path} must have a line for each of {', '.join(columns)}, in this order")
    figures = np.array([_figures(path, line, row) for line, row in rows[1:]])
    ddof = set(figures[:, 2].tolist())
    if len(ddof) != 1:
        raise InvalidInputError(f"{path} must have one ddof in all lines")
    counts = figures[:, 3].astype(np.int64)
    return ScoreStatistics(algorithm, columns, figures[:, 0].copy(), figures[:, 1].copy(), counts, int(ddof.pop()))


def _figures(path: Path, line: int, row: list[str]) -> tuple[float, float, float, float]:
    """mean, std, ddof, count of a line."""
    try:
        mean, deviation = (float(cell) if cell else math.nan for cell in row[2:4])
        ddof, count = (int(cell) for cell in row[4:6])
    except ValueError as error:
        raise InvalidInputError(f"{path}, line {line}: {one_line(error, 120)}") from error
    if math.isinf(mean) or math.isinf(deviation) or deviation < 0 or ddof not in (0, 1) or not 0 <= count <= MAX_NUMBER:
        raise InvalidInputError(f"{path}, line {line}: impossible figures {shown(', '.join(row[2:]))}")
    return mean, deviation, float(ddof), float(count)
