"""What a scoring run found: tables, figures and failures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.scores.statistics import ScoreStatistics
from ohlora.scores.table import ScoreTable


@dataclass
class ScoreResult:
    """What was scored. raw, normalized, statistics: by algorithm. failures: number, path and error of each picture
    that could not be scored. files: what was written, by name.
    """

    pictures: int
    raw: dict[str, ScoreTable]
    normalized: dict[str, ScoreTable] = field(default_factory=dict)
    statistics: dict[str, ScoreStatistics] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def scored(self) -> int:
        return self.pictures - len(self.failures)

    def missing(self) -> dict[str, dict[str, list[int]]]:
        """Numbers of pictures without a score (NaN), by algorithm and column; only where there are any."""
        found: dict[str, dict[str, list[int]]] = {}
        for algorithm, table in self.raw.items():
            for column in table.columns:
                numbers = table.numbers[np.isnan(table.column(column))].tolist()
                if numbers:
                    found.setdefault(algorithm, {})[column] = numbers
        return found

    def without_spread(self) -> dict[str, list[str]]:
        """Columns whose normalised scores are empty, since their deviation is 0 or unknown, by algorithm."""
        columns = {
            a: [c for c, s in zip(f.columns, f.std, strict=True) if not s > 0] for a, f in self.statistics.items()
        }
        return {algorithm: names for algorithm, names in columns.items() if names}
