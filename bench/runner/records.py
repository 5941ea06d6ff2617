"""What a bench run leaves: rows, with the machine they were measured on. One JSON file, read back for comparison."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ohlora.base.atomic import write_json
from ohlora.base.reading import read_object
from ohlora.base.text import shown
from ohlora.bench.runner.timing import Facts, Group, Timing
from ohlora.errors import InvalidInputError, one_line

FORMAT = 1
OLD_WORDS = {"f32": "fp32", "f16": "fp16"}  # of precisions in names of rows


def row_id(*names: str) -> str:
    """A row's name for command lines and tables of other tools: letters, digits, dots and hyphens."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", " ".join(names)).strip("-")


@dataclass(frozen=True)
class Row:
    """One measured line.

    ms: milliseconds a `unit`, median, with `quartiles_ms` of `rounds`; cpu_ms and cpu_quartiles_ms: processor time of
    all its threads and of processes that it started and that have ended. times_baseline: how many times the baseline's
    speed. value: of rows that are no time (a ratio of memory). accuracy: against the baseline's results.
    goal: to be reached; goal_kind: "times" (times_baseline, at least), "seconds" (at most), "ratio" (value, at most).
    what: a few words.
    """

    suite: str
    group: str
    name: str
    unit: str
    ms: float | None = None
    quartiles_ms: tuple[float, float] | None = None
    cpu_ms: float | None = None
    cpu_quartiles_ms: tuple[float, float] | None = None
    rounds: int = 1
    baseline: str | None = None
    times_baseline: float | None = None
    times_quartiles: tuple[float, float] | None = None
    value: float | None = None
    accuracy: Facts = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    goal: float | None = None
    goal_kind: str = "times"
    what: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.suite, self.group, self.name

    @property
    def content(self) -> dict[str, Any]:
        """The fields that are set, for JSON."""
        empty: tuple[Any, ...] = (None, {}, "")
        return {key: value for key, value in asdict(self).items() if value not in empty}

    @property
    def per_second(self) -> float | None:
        return None if not self.ms else 1e3 / self.ms

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.goal is None:
            return None
        if self.goal_kind == "times":
            return self.times_baseline is not None and self.times_baseline >= self.goal
        if self.goal_kind == "seconds":
            return self.ms is not None and self.ms <= 1e3 * self.goal
        return self.value is not None and self.value <= self.goal


def rows_of(group: Group, timings: dict[str, Timing]) -> list[Row]:
    """Rows of a measured group, baseline first."""
    # Without the baseline (PyTorch is not installed) a ratio can neither be met nor missed.
    unjudged = group.goal_kind == "times" and group.baseline is None
    rows = []
    for name in sorted(group.works, key=lambda name: name != group.baseline):
        work, timing = group.works[name], timings[name]
        low, median, high = (_digits(1e3 * value) for value in timing.seconds)
        cpu = [_digits(1e3 * value) for value in timing.cpu]
        ratios = None if timing.ratios is None else [_digits(value) for value in timing.ratios]
        accuracy = {} if work.accuracy is None else work.accuracy()
        rows.append(
            Row(
                group.suite,
                group.name,
                name,
                group.unit,
                ms=median,
                quartiles_ms=(low, high),
                cpu_ms=cpu[1],
                cpu_quartiles_ms=(cpu[0], cpu[2]),
                rounds=timing.rounds,
                baseline=group.baseline,
                times_baseline=None if ratios is None else ratios[1],
                times_quartiles=None if ratios is None else (ratios[0], ratios[2]),
                accuracy={name: _digits(value, 5) for name, value in accuracy.items()},
                goal=None if unjudged else work.goal,
                goal_kind=group.goal_kind,
            )
        )
    return rows


def _today(name: str) -> str:
    return re.sub(r"\w+", lambda found: OLD_WORDS.get(found[0], found[0]), name)


def _digits(value: float, count: int = 4) -> float:
    return float(f"{value:.{count}g}")


@dataclass
class Run:
    """All rows of one run. left_out: what was not measured, and why."""

    machine: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Atomic. Raises OutputError."""
        write_json(path, {"format": FORMAT, **asdict(self), "rows": [row.content for row in self.rows]})

    @classmethod
    def load(cls, path: Path) -> Run:
        """Earlier spellings of a precision are read as today's.

        Raises InvalidInputError naming the file and what is wrong with it.
        """
        try:
            content = read_object(path, "bench result")
            if content["format"] != FORMAT:
                raise InvalidInputError(
                    f"{path} has bench format {shown(content['format'], 40)}, this version reads {FORMAT}"
                )
            pairs = ("quartiles_ms", "cpu_quartiles_ms", "times_quartiles")
            rows = [
                Row(**row | {"name": _today(row["name"])} | {key: tuple(row[key]) for key in pairs if key in row})
                for row in content["rows"]
            ]
            return cls(content["machine"], content["settings"], rows, content["left_out"])
        except InvalidInputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInputError(
                f"{path} is no result of `ohlora bench` ({one_line(error, 120)}): give a bench.json"
            ) from error


def joined(new: Run, old: Run) -> Run:
    """`new` with the suites of `old` that it did not measure: a group's ways are always of one run.

    Raises InvalidInputError when they are of different machines, versions or bundles.
    """
    for what, one, other in (
        ("machine", new.machine, old.machine),
        ("bundle", new.settings.get("subject"), old.settings.get("subject")),
    ):
        if one != other:
            raise InvalidInputError(
                f"the earlier run is of another {what}: {other}, this one of {one}; take another --out"
            )
    suites = list(new.settings["suites"])
    kept = [name for name in old.settings["suites"] if name not in suites]
    presets = new.settings.get("presets") or old.settings.get("presets", [])
    settings = old.settings | {"suites": [*kept, *suites], "presets": presets}
    rows = [row for row in old.rows if row.suite not in suites]
    left_out = [entry for entry in old.left_out if entry["suite"] not in suites]
    return Run(new.machine, settings, [*rows, *new.rows], [*left_out, *new.left_out])
