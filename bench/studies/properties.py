"""Property scores: images/s of the kernels beside the documents' Python loops, and how far results differ, in one run.

    python -m ohlora.bench.studies.properties --data faces --out bench/results/properties.json

Maps are those of --data (or of painted portraits), mirrored and shifted so that no two are equal. Timed is `score`
on arrays in memory, compiled code warmed up. Rounds alternate between all forms, so that a disturbance of the machine
meets each; the loops get a few maps a round, since one takes as long as a thousand. Ratios are to their median.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import write_bytes
from ohlora.bench.baselines.properties import documented
from ohlora.bench.runner.machine import machine
from ohlora.bench.runner.scenes import Maps, batch, of_folders, painted
from ohlora.engines import usable_cores
from ohlora.kernels.choices import Algorithm
from ohlora.kernels.properties import ALGORITHMS, score

BATCH = 500  # of a long run, 100 MB at once


def forms(algorithm: Algorithm, threads: int) -> dict[str, Callable[[Maps, Maps], NDArray[np.float64]]]:
    """The kernel as it can be run."""
    return {
        "numpy reference": lambda p, i: score(p, i, algorithm=algorithm, backend="reference"),
        "numba, 1 thread": lambda p, i: score(p, i, algorithm=algorithm, threads=1),
        f"numba, {threads} threads": lambda p, i: score(p, i, algorithm=algorithm, threads=threads),
    }


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rate(name: str, maps: int, times: list[float]) -> dict[str, Any]:
    """A row: images/s, median and quartiles over rounds of `maps` pictures each."""
    fast, middle, slow = (maps / float(value) for value in np.percentile(times, [25, 50, 75]))
    return {"form": name, "images_per_second": round(middle, 1), "quartiles": [round(slow, 1), round(fast, 1)]}


def differences(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> dict[str, Any]:
    """Largest difference, over all columns, and how many cells only one of the two has."""
    return {
        "max_difference": float(np.nanmax(np.abs(found - wanted))),
        "cells_only_in_one": int((np.isnan(found) != np.isnan(wanted)).sum()),
    }


def compare(algorithm: Algorithm, maps: Maps, pictures: Maps, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one algorithm: the loops, every form on a batch, the compiled forms on a long run."""
    parsing, images = batch(maps, pictures, 0, given.batch)
    sample = min(given.sample, given.batch)
    part = max(1, sample // given.rounds)
    wanted = documented(algorithm, parsing[:sample], images[:sample])  # warms up, too
    kernels = forms(algorithm, given.threads)
    accuracy = {name: differences(run(parsing[:sample], images[:sample]), wanted) for name, run in kernels.items()}
    slow: list[float] = []
    fast: dict[str, list[float]] = {name: [] for name in kernels}
    for turn in range(given.rounds):
        chosen = slice(turn * part % sample, turn * part % sample + part)
        count = len(parsing[chosen])
        slow.append(seconds(lambda at=chosen: documented(algorithm, parsing[at], images[at])) / count)  # type: ignore[misc]
        for name, run in kernels.items():
            fast[name].append(seconds(lambda run=run: run(parsing, images)))  # type: ignore[misc]
    rows = [{"maps": sample, **rate("documents' loops", 1, slow)}]
    rows += [{"maps": given.batch, **rate(name, given.batch, times), **accuracy[name]} for name, times in fast.items()]
    for name, run in list(kernels.items())[1:]:
        rows.append({"maps": given.long, **long_run(name, run, maps, pictures, given.long), **accuracy[name]})
    for row in rows[1:]:
        row["times_documented"] = round(row["images_per_second"] / rows[0]["images_per_second"], 1)
    return [{"algorithm": algorithm, **row} for row in rows]


def long_run(
    name: str, run: Callable[[Maps, Maps], NDArray[np.float64]], maps: Maps, pictures: Maps, count: int
) -> dict[str, Any]:
    """`count` different maps, BATCH at a time; making them is not timed."""
    spent, times = 0.0, []
    for first in range(0, count, BATCH):
        parsing, images = batch(maps, pictures, first, min(BATCH, count - first))
        took = seconds(lambda p=parsing, i=images: run(p, i))  # type: ignore[misc]
        spent += took
        times.append(took / len(parsing))
    return {**rate(name, 1, times), "images_per_second": round(count / spent, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", default=[], help="pictures with class maps; repeatable")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--long", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=40, help="maps for the documents' loops")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), choices=list(ALGORITHMS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    maps, pictures = of_folders(given.data) if given.data else painted()
    result = {
        "machine": machine(),
        "scenes": f"{len(maps)} faces of --data" if given.data else f"{len(maps)} painted portraits",
        "rows": [row for a in given.algorithms for row in compare(a, maps, pictures, given)],
    }
    text = json.dumps(result, indent=1) + "\n"
    if given.out:
        write_bytes(given.out, text.encode())
    print(text, end="")


if __name__ == "__main__":
    main()
