"""A run against a saved one: what became slower or less accurate than a margin allows.

Where a row has a baseline, ratios to it are compared: both were measured in turn, so that the state of the machine
hardly counts. Times are compared for the others, and only on the same kind of machine. What slows a way and its
baseline alike leaves their ratio: on the same kind of machine processor time is compared too. A change counts when even
the better quartile of the new run is beyond the margin from the old median.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan

from ohlora.bench.runner.machine import same_machine
from ohlora.bench.runner.records import Row, Run

MARGIN = 0.2
# Accuracy that may be lost, by the name of the figure; a figure's sign says which way is worse.
WORSE = {"psnr_db": -1.0, "worst_db": -2.0, "hair_iou": -0.002, "iou": -0.002, "share_differing": 1e-3}


@dataclass(frozen=True)
class Change:
    """One finding. kind: "slower", "less accurate", "missing", or "not compared"."""

    row: tuple[str, str, str]
    kind: str
    text: str

    @property
    def regression(self) -> bool:
        return self.kind != "not compared"


def compare(new: Run, old: Run, margin: float = MARGIN) -> list[Change]:
    """Findings in the order of the old run's rows. Rows of suites that the new run did not measure are passed over."""
    now = {row.key: row for row in new.rows}
    measured = {row.suite for row in new.rows}
    left_out = {entry["suite"] for entry in new.left_out}
    alike = same_machine(new.machine, old.machine)
    changes: list[Change] = []
    for row in old.rows:
        if row.suite not in measured:
            continue
        if (other := now.get(row.key)) is not None:
            changes += [*_slower(other, row, alike, margin), *_less_accurate(other, row)]
        else:
            kind = "not compared" if row.suite in left_out else "missing"
            changes.append(Change(row.key, kind, "the saved run has this row, the new one does not"))
    return changes


def _slower(new: Row, old: Row, alike: bool, margin: float) -> Iterator[Change]:
    if new.name == new.baseline:
        return  # its ratio is 1 by definition
    judged: tuple[tuple[str, float | None, tuple[float, float] | None, float | None], ...] = (
        ("", new.value, None, old.value),
        (" ms", new.ms, new.quartiles_ms, old.ms),
        (" ms of processor time", new.cpu_ms, new.cpu_quartiles_ms, old.cpu_ms),
    )
    if new.times_baseline is not None and old.times_baseline is not None:
        if max(new.times_baseline, *(new.times_quartiles or (0.0,))) < old.times_baseline * (1 - margin):
            yield Change(new.key, "slower", f"{new.times_baseline:.3g}x the baseline, was {old.times_baseline:.3g}x")
            return
        judged = judged[2:] if alike else ()
    for unit, now, spread, was in judged:
        if now is None or was is None:
            continue
        if unit and not alike:
            yield Change(new.key, "not compared", "it has no baseline, and the machines differ")
            return
        if min(now, *(spread or (now,))) > was * (1 + margin):
            yield Change(new.key, "slower", f"{now:.4g}{unit}, was {was:.4g}{unit}")
            return


def _less_accurate(new: Row, old: Row) -> Iterator[Change]:
    for name, allowed in WORSE.items():
        moved = new.accuracy.get(name, nan) - old.accuracy.get(name, nan)
        if (moved < allowed) if allowed < 0 else (moved > allowed):  # never of a figure that one of them lacks
            yield Change(new.key, "less accurate", f"{name} {new.accuracy[name]:.4g}, was {old.accuracy[name]:.4g}")
