"""What a bench run leaves: rows, with the machine they were measured on. One JSON file, read back for comparison."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ohlora.base.atomic import write_bytes
from ohlora.bench.runner.timing import Facts, Group, Timing
from ohlora.errors import InvalidInputError

FORMAT = 1
GOAL_KINDS = ("times", "seconds", "ratio")


@dataclass(frozen=True)
class Row:
    """One measured line.

    ms: milliseconds a `unit`, median, with `quartiles_ms` of `rounds`. times_baseline: how many times the baseline's
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
    order = sorted(group.works, key=lambda name: name != group.baseline)
    # Without the baseline (PyTorch is not installed) a ratio can neither be met nor missed.
    unjudged = group.goal_kind == "times" and group.baseline is None
    rows = []
    for name in order:
        work, timing = group.works[name], timings[name]
        rows.append(
            Row(
                group.suite,
                group.name,
                name,
                group.unit,
                ms=_digits(1e3 * timing.median),
                quartiles_ms=(_digits(1e3 * timing.quartiles[0]), _digits(1e3 * timing.quartiles[1])),
                rounds=timing.rounds,
                baseline=group.baseline,
                times_baseline=None if timing.ratio is None else _digits(timing.ratio),
                times_quartiles=None
                if timing.ratio_quartiles is None
                else (_digits(timing.ratio_quartiles[0]), _digits(timing.ratio_quartiles[1])),
                accuracy={} if work.accuracy is None else {k: _digits(v, 5) for k, v in work.accuracy().items()},
                goal=None if unjudged else work.goal,
                goal_kind=group.goal_kind,
            )
        )
    return rows


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
        content = {
            "format": FORMAT,
            "machine": self.machine,
            "settings": self.settings,
            "rows": [_lean(asdict(row)) for row in self.rows],
            "left_out": self.left_out,
        }
        write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Run:
        """Raises InvalidInputError naming the file and what is wrong with it."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise InvalidInputError(f"{path} has bench format {content['format']}, this version reads {FORMAT}")
            rows = [Row(**{**row, **_tuples(row)}) for row in content["rows"]]
            return cls(content["machine"], content["settings"], rows, content["left_out"])
        except OSError as error:
            raise InvalidInputError(f"cannot read the bench result {path}: {error.strerror or error}") from error
        except InvalidInputError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(f"{path} is no result of `ohlora bench` ({error}): give a bench.json") from error


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


def _lean(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value not in (None, {}, "")}


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(row[key]) for key in ("quartiles_ms", "times_quartiles") if row.get(key) is not None}
