"""What a stage shows in the report beside its figures: curves, histograms, tables, pictures; all JSON values.

Curves and histograms are drawn as inline SVG: text, so that a report is one file and they are sharp at any size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

BINS = 30
WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 26, 34
COLORS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#555555", "#17a2a2", "#ad1457")
TICKS = 4
TEXT = 'font-family="sans-serif" font-size="11"'


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
        """Counts of the finite values in equal bins from the least to the greatest; one bin where more do not fit."""
        array = np.asarray(values, np.float64).ravel()
        finite = array[np.isfinite(array)]
        if not len(finite):
            return
        low, high = float(finite.min()), float(finite.max())
        try:
            counts, edges = np.histogram(finite, bins)
        except ValueError:  # neighbors among the numbers, or a range beyond them
            counts, edges = np.array([len(finite)]), np.array([low, high])
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


def curve(entry: Mapping[str, Any]) -> str:
    """One entry of `Exhibits.curves` -> SVG. Values that are missing interrupt their line."""
    x = [float(v) for v in entry["x"]]
    series: Mapping[str, Sequence[float | None]] = entry["series"]
    values = [v for row in series.values() for v in row if v is not None]
    if not x or not values:
        return ""
    frame = Frame(min(x), max(x), min(values), max(values))
    parts = [frame.axes(entry["title"], entry["x_label"])]
    for i, (name, row) in enumerate(series.items()):
        color = COLORS[i % len(COLORS)]
        for piece in _pieces(x, row):
            if len(piece) == 1:
                parts.append(f'<circle cx="{frame.x(piece[0][0])}" cy="{frame.y(piece[0][1])}" r="2" fill="{color}"/>')
            else:
                points = " ".join(f"{frame.x(a)},{frame.y(b)}" for a, b in piece)
                parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts.append(_legend(i, name, color, len(series)))
    return _svg(parts)


def histogram(entry: Mapping[str, Any]) -> str:
    """One entry of `Exhibits.histograms` -> SVG."""
    counts, low, high = entry["counts"], float(entry["low"]), float(entry["high"])
    frame = Frame(low, high, 0, max(counts))
    step = (high - low) / len(counts)
    note = entry["x_label"] + (f" ({entry['left_out']} without a value)" if entry["left_out"] else "")
    parts = [frame.axes(entry["title"], note)]
    for i, count in enumerate(counts):
        left, right, top = frame.x(low + i * step), frame.x(low + (i + 1) * step), frame.y(count)
        width, height = max(right - left - 0.5, 0.5), frame.y(0) - top
        parts.append(f'<rect x="{left}" y="{top}" width="{width:.1f}" height="{height:.1f}" fill="{COLORS[0]}"/>')
    return _svg(parts)


class Frame:
    """From values to places in the picture; a range without width is widened."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self.x_low, self.x_high = _widened(x_low, x_high)
        self.y_low, self.y_high = _widened(y_low, y_high)

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM), 1)

    def axes(self, title: str, x_label: str) -> str:
        box = f'x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
        parts = [
            f'<rect {box} fill="none" stroke="#bbb"/>',
            f'<text x="{LEFT}" y="16" {TEXT} font-weight="bold">{escape(title)}</text>',
            f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" {TEXT} text-anchor="end" fill="#555">{escape(x_label)}</text>',
        ]
        for i in range(TICKS + 1):
            share = i / TICKS
            at = self.y_low + share * (self.y_high - self.y_low)
            parts.append(
                f'<text x="{LEFT - 4}" y="{self.y(at) + 4}" {TEXT} text-anchor="end" fill="#555">{at:.3g}</text>'
            )
            at = self.x_low + share * (self.x_high - self.x_low)
            place = f'x="{self.x(at)}" y="{HEIGHT - BOTTOM + 14}"'
            parts.append(f'<text {place} {TEXT} text-anchor="middle" fill="#555">{at:.3g}</text>')
        return "".join(parts)


def _widened(low: float, high: float) -> tuple[float, float]:
    if high > low:
        return low, high
    margin = abs(low) * 0.1 or 0.5
    return low - margin, low + margin


def _pieces(x: Sequence[float], row: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = [[]]
    for a, b in zip(x, row, strict=False):
        if b is None or not math.isfinite(b):
            pieces.append([])
        else:
            pieces[-1].append((a, b))
    return [piece for piece in pieces if piece]


def _legend(i: int, name: str, color: str, count: int) -> str:
    if count < 2:
        return ""
    at = TOP + 13 + 13 * i
    return f'<text x="{WIDTH - RIGHT - 6}" y="{at}" {TEXT} text-anchor="end" fill="{color}">{escape(name)}</text>'


def _svg(parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
    return head + "".join(parts) + "</svg>"
