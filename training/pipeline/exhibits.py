"""What a stage shows in the report beside its figures: curves, histograms, tables, pictures. All JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

BINS = 30


@dataclass
class Exhibits:
    """Collects them."""

    curves: list[dict[str, Any]] = field(default_factory=list)
    histograms: list[dict[str, Any]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, str]] = field(default_factory=list)

    def curve(self, title: str, x: Sequence[float], series: Mapping[str, Sequence[float | None]], x_label: str) -> None:
        """Lines over x; None where a line has no value."""
        values = {name: [_number(value) for value in row] for name, row in series.items()}
        self.curves.append({"title": title, "x": [float(v) for v in x], "series": values, "x_label": x_label})

    def histogram(self, title: str, values: ArrayLike, bins: int = BINS, x_label: str = "") -> None:
        """Counts of the finite values in equal bins from the least to the greatest."""
        array = np.asarray(values, np.float64).ravel()
        finite = array[np.isfinite(array)]
        if not len(finite):
            return
        counts, edges = np.histogram(finite, bins)
        left_out = int(len(array) - len(finite))
        self.histograms.append(
            {
                "title": title,
                "counts": counts.tolist(),
                "low": float(edges[0]),
                "high": float(edges[-1]),
                "left_out": left_out,
                "x_label": x_label,
            }
        )

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.tables.append({"title": title, "columns": list(columns), "rows": [list(row) for row in rows]})

    def picture(self, title: str, file: str) -> None:
        """file: relative to the stage's folder."""
        self.pictures.append({"title": title, "file": file})

    def as_dict(self) -> dict[str, Any]:
        """The kinds of which there is something."""
        return {kind: entries for kind, entries in vars(self).items() if entries}


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
