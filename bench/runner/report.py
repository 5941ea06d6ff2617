"""A run as text: tables for the terminal, a Markdown report, the README's table, the list of goals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from ohlora.base.atomic import write_bytes
from ohlora.bench.runner.records import Row, Run
from ohlora.errors import InvalidInputError

# Figures of accuracy, the first that a row has is the one that tables show: (name, how it is written).
ACCURACY = (
    ("psnr_db", "{:.1f} dB"),
    ("iou", "IoU {:.4f}"),
    ("share_differing", "{:.2%} differ"),
    ("max_difference", "at most {:.1g}"),
)
EQUAL_DB = 100.0
GOALS = {"times": "x or more", "seconds": " s or less", "ratio": " or less"}
COLUMNS = ("what", "way", "ms", "per second", "against", "accuracy", "goal")
BEGIN, END = "<!-- bench table: begin -->", "<!-- bench table: end -->"


def accuracy_text(row: Row) -> str:
    for name, pattern in ACCURACY:
        if name in row.accuracy:
            value = row.accuracy[name]
            if (name == "psnr_db" and value >= EQUAL_DB) or (name == "share_differing" and value == 0):
                return "equal"
            worst = row.accuracy.get("worst_db")
            return pattern.format(value) + (f" (worst {worst:.1f})" if name == "psnr_db" and worst is not None else "")
    return ""


def number(value: float) -> str:
    """Three digits that count, no exponent."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def times_text(row: Row) -> str:
    if row.times_baseline is None:
        return ""
    if row.name == row.baseline:
        return "1"
    spread = row.times_quartiles
    return f"{number(row.times_baseline)}x" + (f" ({number(spread[0])} to {number(spread[1])})" if spread else "")


def goal_text(row: Row) -> str:
    if row.goal is None:
        return ""
    return f"{row.goal:g}{GOALS[row.goal_kind]}: {'met' if row.met else 'missed'}"


def time_text(row: Row) -> str:
    if row.ms is None:
        return "" if row.value is None else f"{row.value:g} {row.unit}"
    return number(row.ms)


def cells(row: Row) -> tuple[str, ...]:
    rate = "" if row.per_second is None else f"{number(row.per_second)} {row.unit}s"
    peak = row.facts.get("peak_mb")
    extra = accuracy_text(row) or (f"peak {peak:g} MB" if peak is not None else "")
    return row.name, time_text(row), rate, times_text(row), extra, goal_text(row)


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    made = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in made)


def machine_text(run: Run) -> str:
    found = run.machine
    versions = ", ".join(f"{name} {version}" for name, version in found.get("versions", {}).items())
    return f"{found.get('cpu')}, {found.get('cores')} cores used, Python {found.get('python')}; {versions}"


def markdown(run: Run, plots: Sequence[str] = ()) -> str:
    """The whole report."""
    presets = ", ".join(run.settings.get("presets", []))
    parts = [
        "# Bench report",
        f"{machine_text(run)}.",
        f"Measured: {run.settings.get('subject', '')}; presets {presets}. Times are medians of rounds in which every "
        "way has its turn; ratios are of the same round, with quartiles. How: bench/README.md of the source.",
    ]
    goals = [row for row in run.rows if row.goal is not None]
    if goals:
        parts += ["## Goals", goal_table(goals)]
    for suite, rows in groupby(run.rows, key=lambda row: row.suite):
        parts += [f"## {suite}", markdown_table(COLUMNS, _once((row.group, *cells(row)) for row in rows))]
    if run.left_out:
        parts += ["## Not measured", "\n".join(f"- {entry['suite']}: {entry['why']}" for entry in run.left_out)]
    parts += [f"![{Path(name).stem}]({name})" for name in plots]
    return "\n\n".join(parts) + "\n"


def goal_table(rows: Iterable[Row]) -> str:
    lines = []
    for row in rows:
        reached = times_text(row) if row.goal_kind == "times" else f"{time_text(row)}{' ms' if row.ms else ''}"
        lines.append((row.group, row.name, row.baseline or "", reached, accuracy_text(row), goal_text(row)))
    return markdown_table(("what", "way", "against", "measured", "accuracy", "goal"), lines)


def readme_table(run: Run) -> str:
    """The README's table: whole jobs, the student, the kernels, start and memory, each beside its baseline."""
    lines = []
    for row in run.rows:
        goals = row.group.startswith(("ombre, batch", "scores v2", "student, batch 8"))
        base = row.name == row.baseline and row.suite in ("kernels", "engines") and goals
        if row.suite == "pipeline" or row.goal is not None or base:
            rate = "" if row.per_second is None or row.suite == "cold-start" else number(row.per_second)
            plain = (
                f"{row.value:g}x" if row.value is not None else f"{row.ms / 1e3:.2g} s" if row.ms is not None else ""
            )
            lines.append((row.group, row.name, rate, times_text(row) or plain, accuracy_text(row)))
    return markdown_table(("job", "way", "per second", "against the first way", "accuracy"), _once(lines))


def _once(lines: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    """The first cell only where it changes."""
    return [
        (first if place == 0 else "", *rest)
        for first, same in groupby(lines, key=lambda line: line[0])
        for place, (_, *rest) in enumerate(same)
    ]


def readme_block(run: Run) -> str:
    """What stands between the README's marks, marks included."""
    return f"{BEGIN}\n{machine_text(run)}.\n\n{readme_table(run)}\n{END}"


def update_readme(path: Path, run: Run) -> bool:
    """Put the table between its marks; whether that changed the file. Raises InvalidInputError without marks."""
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise InvalidInputError(f"{path} has no place for the table: put a line '{BEGIN}' and a line '{END}' there")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    made = f"{before}{readme_block(run)}{after}"
    if made == text:
        return False
    write_bytes(path, made.encode())
    return True
