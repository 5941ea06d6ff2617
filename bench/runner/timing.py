"""Time works beside their baseline: in turn, round by round, so that a disturbance of the machine meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Facts = dict[str, float]
TURN, MOST_CALLS = 0.3, 1000


@dataclass(frozen=True)
class Work:
    """call: does `units` of what its group counts. accuracy: how far its results are from the baseline's.

    goal: times the baseline's speed that it is to reach, or seconds (`Group.goal_kind`).
    """

    call: Callable[[], Any]
    units: int = 1
    accuracy: Callable[[], Facts] | None = None
    goal: float | None = None


@dataclass
class Group:
    """Works that do the same thing. baseline: name of one, or None. unit: what is counted ("portrait").

    opened: what has to be closed afterwards. goal_kind: as in `records.Row`.
    """

    suite: str
    name: str
    unit: str
    works: dict[str, Work]
    baseline: str | None = None
    opened: ExitStack = field(default_factory=ExitStack)
    goal_kind: str = "times"

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.close()


@dataclass(frozen=True)
class Timing:
    """Seconds a unit: median, quartiles, number of rounds. ratio: baseline over this, of the same round."""

    median: float
    quartiles: tuple[float, float]
    rounds: int
    ratio: float | None = None
    ratio_quartiles: tuple[float, float] | None = None


def measure(
    works: Mapping[str, Work],
    baseline: str | None = None,
    *,
    rounds: int = 9,
    seconds: float = 60.0,
    fewest: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Every work once to warm up, then in turn; `rounds` times, or until `seconds` are over and `fewest` are done.

    A turn lasts TURN seconds or one call, and counts as the median of its calls: the first ones after other work find
    cold caches and sleeping cores. A ratio is the median, over rounds, of the baseline's time over the work's.
    Raises ValueError when the baseline is none of the works.
    """
    if baseline is not None and baseline not in works:
        raise ValueError(f"baseline '{baseline}' is none of {', '.join(works)}")
    calls: dict[str, int] = {}
    for name, work in works.items():
        work.call()
        started = clock()
        work.call()
        calls[name] = min(max(1, round(TURN / max(clock() - started, 1e-9))), MOST_CALLS)
    times: dict[str, list[float]] = {name: [] for name in works}
    begun = clock()
    for done in range(rounds):
        if done >= fewest and clock() - begun > seconds:
            break
        for name, work in works.items():
            times[name].append(_turn(work.call, calls[name], clock) / work.units)
    base = None if baseline is None else np.array(times[baseline])
    return {name: _timing(np.array(taken), base) for name, taken in times.items()}


def _turn(call: Callable[[], Any], count: int, clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(count):
        started = clock()
        call()
        taken.append(clock() - started)
    return float(np.median(taken))


def _timing(taken: np.ndarray[Any, np.dtype[np.float64]], base: np.ndarray[Any, Any] | None) -> Timing:
    low, middle, high = (float(value) for value in np.percentile(taken, [25, 50, 75]))
    if base is None:
        return Timing(middle, (low, high), len(taken))
    worst, ratio, best = (float(value) for value in np.percentile(base / taken, [25, 50, 75]))
    return Timing(middle, (low, high), len(taken), ratio, (worst, best))
