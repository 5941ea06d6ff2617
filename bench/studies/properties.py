"""Property scores: images/s of the kernels beside the documents' Python loops, and how far results differ, in one run.

    python -m ohlora.bench.studies.properties --data faces --out bench/results/properties.json

Maps are those of --data (or of painted portraits), mirrored and shifted so that no two are equal. Timed is `score`
on arrays in memory, compiled code warmed up. Rounds alternate between all forms, so that a disturbance of the machine
meets each; the loops get a few maps a round, since one takes as long as a thousand. Ratios are to their median.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.bench.baselines.properties import documented
from ohlora.bench.runner.scenes import Maps, batch, of_folders, painted
from ohlora.bench.runner.study import study
from ohlora.bench.runner.timing import Floats, quartiles, seconds_of
from ohlora.bench.suites.kernels import differences
from ohlora.engines import usable_cores
from ohlora.kernels.choices import Algorithm
from ohlora.kernels.properties import ALGORITHMS, score

BATCH = 500  # of a long run, 100 MB at once
Form = Callable[[Maps, Maps], NDArray[np.float64]]


def forms(algorithm: Algorithm, threads: int) -> dict[str, Form]:
    """The kernel as it can be run."""
    return {
        "numpy reference": partial(score, algorithm=algorithm, backend="reference"),
        "numba, 1 thread": partial(score, algorithm=algorithm, threads=1),
        f"numba, {threads} threads": partial(score, algorithm=algorithm, threads=threads),
    }


def rate(name: str, maps: int, times: Floats) -> dict[str, Any]:
    """A row: images/s, median and quartiles over rounds of `maps` pictures each."""
    fast, middle, slow = (round(maps / value, 1) for value in quartiles(times))
    return {"form": name, "images_per_second": middle, "quartiles": [slow, fast]}


def compare(
    algorithm: Algorithm, faces: tuple[Maps, Maps], threads: int, count: int, long: int, sample: int, rounds: int
) -> list[dict[str, Any]]:
    """Rows of one algorithm: the loops, every form on a batch of `count`, the compiled forms on a long run."""
    parsing, images = batch(*faces, 0, count)
    few = parsing[:sample], images[:sample]
    kernels = forms(algorithm, threads)
    made = {name: run(*few) for name, run in kernels.items()}
    wanted = documented(algorithm, *few)  # warms up, too
    accuracy = {name: differences(scores, wanted) for name, scores in made.items()}
    part = max(1, len(few[0]) // rounds)
    turns = (np.arange(turn * part, (turn + 1) * part) % len(few[0]) for turn in itertools.count())

    def loops() -> None:
        chosen = next(turns)
        documented(algorithm, parsing[chosen], images[chosen])

    calls: dict[str, Callable[[], Any]] = {"documents' loops": loops}
    calls |= {name: partial(run, parsing, images) for name, run in kernels.items()}
    times = seconds_of(calls, rounds, warm=0)
    rows = [
        {"maps": count, **rate(name, count, times[name]), **accuracy[name]} if name in kernels
        else {"maps": len(few[0]), **rate(name, part, times[name])}
        for name in calls
    ]  # fmt: skip
    for name, run in list(kernels.items())[1:]:
        rows.append({"maps": long, **long_run(name, run, faces, long), **accuracy[name]})
    for row in rows[1:]:
        row["times_documented"] = round(row["images_per_second"] / rows[0]["images_per_second"], 1)
    return [{"algorithm": algorithm, **row} for row in rows]


def long_run(name: str, run: Form, faces: tuple[Maps, Maps], count: int) -> dict[str, Any]:
    """`count` different maps, BATCH at a time; making them is not timed."""
    parts = [(first, min(BATCH, count - first)) for first in range(0, count, BATCH)]
    times = [seconds_of({"": partial(run, *batch(*faces, *part))}, 1, warm=0)[""][0] for part in parts]
    row = rate(name, 1, np.array([taken / part[1] for taken, part in zip(times, parts, strict=True)]))
    return row | {"images_per_second": round(count / sum(times), 1)}


@study(data="pictures with class maps; repeatable", sample="maps for the documents' loops")
def main(
    data: list[Path] | None = None,
    batch: int = 256,
    long: int = 10_000,
    sample: int = 40,
    rounds: int = 10,
    threads: int = usable_cores(),
    algorithms: list[Algorithm] = list(ALGORITHMS),  # noqa: B006 - read only
) -> dict[str, Any]:
    faces = of_folders(data) if data else painted()
    return {
        "scenes": f"{len(faces[0])} faces of --data" if data else f"{len(faces[0])} painted portraits",
        "rows": [row for a in algorithms for row in compare(a, faces, threads, batch, long, sample, rounds)],
    }


if __name__ == "__main__":
    main()
