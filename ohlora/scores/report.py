"""The summary of a scoring run: scores.png (histograms) and scores.html (one file, no script, nothing to load)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ohlora.base.atomic import write_bytes
from ohlora.base.types import Rgb
from ohlora.errors import ImageError
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image
from ohlora.scores.result import ScoreResult
from ohlora.scores.sources import ScoreSource
from ohlora.scores.table import ScoreTable

WIDTH, HEIGHT = 320, 190
LEFT, RIGHT, TOP, BOTTOM = 12, 12, 26, 36
MOST_BINS = 40
PER_ROW = 4
EXTREMES, CELL = 6, 96
SHOWN = 50  # pictures named in a list
INK, FAINT, BAR, MEAN_LINE = "#222222", "#bbbbbb", "#1b6ca8", "#c0392b"

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } img { max-width: 100%; }
section.property { display: grid; grid-template-columns: 320px 1fr; gap: 1rem; align-items: start; margin: 1rem 0; }
figure { margin: 0 0 .5rem; } figcaption { color: #555; } .warn { color: #a33; }
"""


def write_report(out: Path, result: ScoreResult, source: ScoreSource) -> dict[str, Path]:
    """Write both files atomically; returns them by name."""
    charts = {
        (algorithm, column): histogram(f"{algorithm}  {column}", table.column(column))
        for algorithm, table in result.raw.items()
        for column in table.columns
    }
    write_bytes(out / "scores.png", encode_image(arranged(list(charts.values())), "png"))
    page = html_page(result, source, charts)
    write_bytes(out / "scores.html", page.encode())
    return {"scores.html": out / "scores.html", "scores.png": out / "scores.png"}


def histogram(title: str, values: NDArray[np.float64]) -> Rgb:
    """Counts of raw scores from the lowest to the highest, the mean as a line: uint8 RGB [HEIGHT,WIDTH,3]."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    known = values[~np.isnan(values)]
    missing = f", {len(values) - len(known)} missing" if len(known) < len(values) else ""
    draw.text((LEFT, 5), f"{title}  (n = {len(known)}{missing})", fill=INK, font=font)
    bottom, width = HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT
    draw.line((LEFT, bottom, WIDTH - RIGHT, bottom), fill=FAINT)
    if not len(known):
        return np.array(image)
    low, high = float(known.min()), float(known.max())
    # One value alone gets a bar in the middle.
    edges = (low, high) if high > low else (low - 0.5, low + 0.5)
    bins = int(np.clip(2 * np.sqrt(len(known)), 8, MOST_BINS))
    counts, _ = np.histogram(known, bins, edges)
    for i, count in enumerate(counts):
        if count:
            x0, x1 = LEFT + i * width / bins, LEFT + (i + 1) * width / bins - 1
            draw.rectangle((x0, bottom - 1 - count / counts.max() * (bottom - TOP), x1, bottom - 1), fill=BAR)
    mean = float(known.mean())
    middle = LEFT + (mean - edges[0]) / (edges[1] - edges[0]) * width
    draw.line((middle, TOP, middle, bottom), fill=MEAN_LINE)
    draw.text((LEFT, bottom + 3), f"{edges[0]:.4g}", fill=INK, font=font)
    draw.text((WIDTH - RIGHT, bottom + 3), f"{edges[1]:.4g}", fill=INK, font=font, anchor="ra")
    draw.text((WIDTH / 2, bottom + 18), f"mean {mean:.4g}", fill=MEAN_LINE, font=font, anchor="ma")
    return np.array(image)


def arranged(charts: Sequence[Rgb]) -> Rgb:
    """Charts of one size on white, PER_ROW a row."""
    rows = -(-len(charts) // PER_ROW)
    sheet = np.full((rows * HEIGHT, min(len(charts), PER_ROW) * WIDTH, 3), 255, np.uint8)
    for i, chart in enumerate(charts):
        y, x = i // PER_ROW * HEIGHT, i % PER_ROW * WIDTH
        sheet[y : y + HEIGHT, x : x + WIDTH] = chart
    return sheet


def html_page(result: ScoreResult, source: ScoreSource, charts: dict[tuple[str, str], Rgb]) -> str:
    """The whole page."""
    items = {item.number: item for item in source.items}

    @cache
    def thumbnail(number: int) -> Rgb:
        try:
            return source.picture(items[number])
        except ImageError:  # gone since it was scored
            return np.full((CELL, CELL, 3), 200, np.uint8)

    parts = [f"<p>{result.scored} of {result.pictures} pictures scored.</p>"]
    for algorithm, table in result.raw.items():
        parts += [f"<h2>{escape(algorithm)}</h2>", figures_table(result, algorithm)]
        for column in table.columns:
            ends = []
            for name, rows in extremes(table, column).items():
                if len(rows):
                    captions = [f"{table.numbers[r]}: {table.column(column)[r]:.4g}" for r in rows]
                    pictures = [thumbnail(int(table.numbers[r])) for r in rows]
                    sheet = contact_sheet(pictures, columns=EXTREMES, cell=CELL, captions=captions)
                    ends.append(f"<figure><figcaption>{name}</figcaption>{embedded(sheet, 'jpeg', name)}</figure>")
            chart = embedded(charts[algorithm, column], "png", f"Histogram of {column}")
            parts.append(f'<section class="property"><div>{chart}</div><div>{"".join(ends)}</div></section>')
    parts += [missing_list(result), failure_list(result)]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Property scores</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>Property scores</h1>\n{body}\n</body></html>\n"
    )


def extremes(table: ScoreTable, column: str) -> dict[str, NDArray[np.intp]]:
    """Rows of the lowest and the highest scores, the most extreme first; of equal ones the first in the table."""
    values = table.column(column)
    known = np.flatnonzero(~np.isnan(values))
    low = known[np.argsort(values[known], kind="stable")][:EXTREMES]
    high = known[np.argsort(-values[known], kind="stable")][:EXTREMES]
    return {"lowest": low, "highest": high}


def figures_table(result: ScoreResult, algorithm: str) -> str:
    """Raw figures of this run, and what it was normalised with."""
    table, used = result.raw[algorithm], result.statistics[algorithm]
    heads = ("property", "count", "missing", "lowest", "median", "highest", "mean", "deviation", "normalised with")
    rows = []
    for i, column in enumerate(table.columns):
        values = table.column(column)
        known = values[~np.isnan(values)]
        spread = [f(known) if len(known) else np.nan for f in (np.min, np.median, np.max, np.mean)]
        deviation = known.std(ddof=used.ddof) if len(known) > used.ddof else np.nan
        cells = [column, len(known), len(values) - len(known), *(f"{v:.4f}" for v in (*spread, deviation))]
        cells.append(f"{used.mean[i]:.4f} ± {used.std[i]:.4f}")
        rows.append("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def missing_list(result: ScoreResult) -> str:
    """Pictures whose score does not exist."""
    lines = [
        f"<li>{escape(algorithm)} {escape(column)}: {_named(numbers)}</li>"
        for algorithm, columns in result.missing().items()
        for column, numbers in columns.items()
    ]
    return f'<h2>Without a score</h2><ul class="warn">{"".join(lines)}</ul>' if lines else ""


def failure_list(result: ScoreResult) -> str:
    """Pictures that could not be scored."""
    lines = [f"<li>{escape(row['error'])}</li>" for row in result.failures[:SHOWN]]
    if len(result.failures) > SHOWN:
        lines.append(f"<li>... and {len(result.failures) - SHOWN} more</li>")
    return f'<h2>Left out</h2><ul class="warn">{"".join(lines)}</ul>' if lines else ""


def embedded(image: Rgb, format: str, name: str) -> str:
    """An <img> that carries its picture."""
    data = base64.b64encode(encode_image(image, format, 85)).decode()
    height, width = image.shape[:2]
    return f'<img alt="{escape(name)}" width="{width}" height="{height}" src="data:image/{format};base64,{data}">'


def _named(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return ", ".join(map(str, numbers[:SHOWN])) + more
