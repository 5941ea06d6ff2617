"""Time works beside their baseline: in turn, round by round, so that a disturbance of the machine meets all of them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Facts = dict[str, float]
Floats = NDArray[np.float64]
Clock = Callable[[], float]
Quartiles = tuple[float, float, float]  # lower quartile, median, upper quartile
TURN, MOST_CALLS, FEWEST = 0.3, 1000, 3


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
    """Quartiles over rounds. seconds: of a unit; cpu: processor seconds of a unit; ratios: of the baseline's time over
    this one's, of the same round.
    """

    seconds: Quartiles
    cpu: Quartiles
    rounds: int
    ratios: Quartiles | None = None


def cpu_seconds() -> float:
    """Processor time of this process, all threads, and of its children that have ended."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def measure(
    works: Mapping[str, Work],
    baseline: str | None = None,
    *,
    rounds: int = 9,
    seconds: float = 60.0,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = cpu_seconds,
) -> dict[str, Timing]:
    """Every work once to warm up, then in turn; `rounds` times, or until `seconds` are over and FEWEST are done.

    A turn lasts TURN seconds or one call, and counts as the median of its calls: the first ones after other work find
    cold caches and sleeping cores. A ratio is the median, over rounds, of the baseline's time over the work's.
    Raises ValueError when the baseline is none of the works.
    """
    if baseline is not None and baseline not in works:
        raise ValueError(f"baseline '{baseline}' is none of {', '.join(works)}")
    calls = {name: work.call for name, work in works.items()}
    once = seconds_of(calls, 1, clock=clock)
    counts = {name: min(max(1, round(TURN / max(taken[0], 1e-9))), MOST_CALLS) for name, taken in once.items()}
    taken = turns(calls, (clock, cpu_clock), rounds, warm=0, counts=counts, seconds=seconds, fewest=FEWEST)
    times, cpu = ({name: both[:, i] / works[name].units for name, both in taken.items()} for i in (0, 1))
    base = None if baseline is None else times[baseline]
    return {
        name: Timing(quartiles(own), quartiles(cpu[name]), len(own), None if base is None else quartiles(base / own))
        for name, own in times.items()
    }


def seconds_of(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    warm: int = 1,
    seconds: float = math.inf,
    clock: Clock = time.perf_counter,
) -> dict[str, Floats]:
    """Seconds of every call in turn, round by round [rounds], after `warm` rounds that do not count.

    No round begins after `seconds`.
    """
    taken = turns(calls, (clock,), rounds, warm=warm, seconds=seconds)
    return {name: values[:, 0] for name, values in taken.items()}


def turns(
    calls: Mapping[str, Callable[[], Any]],
    clocks: Sequence[Clock],
    rounds: int,
    *,
    warm: int = 1,
    counts: Mapping[str, int] | None = None,
    seconds: float = math.inf,
    fewest: int = 1,
) -> dict[str, Floats]:
    """What every call takes by each clock [rounds,clocks], in turn, after `warm` rounds that do not count.

    counts: calls that a turn has, 1 without; it counts as their median. No round begins after `seconds` of the first
    clock, when `fewest` are done.
    """
    for _ in range(warm):
        for call in calls.values():
            call()
    times: dict[str, list[Floats]] = {name: [] for name in calls}
    begun = clocks[0]()
    for done in range(rounds):
        if done >= fewest and clocks[0]() - begun > seconds:
            break
        for name, call in calls.items():
            taken = []
            for _ in range((counts or {}).get(name, 1)):
                # The first clock is read last before a call and first after it: reading the others costs it nothing.
                started = [clock() for clock in reversed(clocks)]
                call()
                taken.append([clock() - before for clock, before in zip(clocks, reversed(started), strict=True)])
            times[name].append(np.median(taken, axis=0))
    return {name: np.array(values) for name, values in times.items()}


def quartiles(values: Floats | Sequence[float]) -> Quartiles:
    low, middle, high = (float(value) for value in np.percentile(values, [25, 50, 75]))
    return low, middle, high
