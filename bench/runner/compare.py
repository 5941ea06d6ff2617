"""A run against a saved one: what became slower or less accurate than a margin allows.

Where a row has a baseline, ratios to it are compared: both were measured in turn, so that the state of the machine
hardly counts. Times are compared for the others, and only on the same kind of machine. A change counts when even the
better quartile of the new run is beyond the margin from the old median.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        other = now.get(row.key)
        if other is None:
            kind = "not compared" if row.suite in left_out else "missing"
            changes.append(Change(row.key, kind, "the saved run has this row, the new one does not"))
            continue
        changes += [change for change in (_slower(other, row, alike, margin),) if change is not None]
        changes += _less_accurate(other, row)
    return changes


def _slower(new: Row, old: Row, alike: bool, margin: float) -> Change | None:
    if new.name == new.baseline:
        return None  # its ratio is 1 by definition
    if new.times_baseline is not None and old.times_baseline is not None:
        best = max((new.times_baseline, *(new.times_quartiles or ())))
        if best < old.times_baseline * (1 - margin):
            text = f"{new.times_baseline:.3g}x the baseline, was {old.times_baseline:.3g}x"
            return Change(new.key, "slower", text)
        return None
    for what, is_now, was in (("value", new.value, old.value), ("ms", new.ms, old.ms)):
        if is_now is None or was is None:
            continue
        if what == "ms" and not alike:
            return Change(new.key, "not compared", "it has no baseline, and the machines differ")
        best = min((is_now, *(new.quartiles_ms or ()))) if what == "ms" else is_now
        if best > was * (1 + margin):
            unit = " ms" if what == "ms" else ""
            return Change(new.key, "slower", f"{is_now:.4g}{unit}, was {was:.4g}{unit}")
    return None


def _less_accurate(new: Row, old: Row) -> list[Change]:
    changes = []
    for name, allowed in WORSE.items():
        if name in new.accuracy and name in old.accuracy:
            moved = new.accuracy[name] - old.accuracy[name]
            if (moved < allowed) if allowed < 0 else (moved > allowed):
                text = f"{name} {new.accuracy[name]:.4g}, was {old.accuracy[name]:.4g}"
                changes.append(Change(new.key, "less accurate", text))
    return changes
