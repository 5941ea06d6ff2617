"""Whole commands in processes of their own: start-up to the first file; time and memory by the number of items."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ohlora.bench.runner.jobs import Folders
from ohlora.bench.runner.records import Row
from ohlora.bench.runner.timing import Group, Work
from ohlora.bench.suites.options import Options
from ohlora.engines.cache import CACHE_VARIABLE

COLD_GOAL, MEMORY_GOAL = 3.0, 1.1
DYES_A_FACE = 50
COLOR = "0:0.98:50"


def cold_start_groups(options: Options) -> Iterator[Group]:
    """`ohlora render --bundle demo --faces 7` until the process has ended, its file written."""
    stack = ExitStack()
    folders = stack.enter_context(Folders())
    filled = folders.new()

    def first_file(cache: Path, *more: str) -> None:
        out = folders.new()
        run_command(["render", "--bundle", "demo", "--faces", "7", "--out", str(out), *more], cache)

    works = {
        "engine cache filled": Work(lambda: first_file(filled), goal=COLD_GOAL),
        "engine cache filled, dyed": Work(lambda: first_file(filled, "--color", "0.5"), goal=COLD_GOAL),
        "engine cache empty, dyed": Work(lambda: first_file(folders.new(), "--color", "0.5"), goal=COLD_GOAL),
        "`import ohlora` alone": Work(lambda: run_python(["-c", "import ohlora"], filled)),
    }
    name = "start of the process to the first file, demo bundle"
    yield Group("cold-start", name, "start", works, None, stack, goal_kind="seconds")


def scaling_rows(options: Options) -> Iterator[Row]:
    """Jobs of the demo bundle, each a command of its own: seconds and peak memory by items. A face carries 50 dyes."""
    peaks: dict[int, float] = {}
    with Folders() as folders:
        cache = folders.new()
        run_command(render_of(1, folders.new()), cache)  # fills the engine cache
        for items in options.items:
            seconds, peak, summary = measured_job(items, folders.new(), cache)
            peaks[items] = peak
            yield Row(
                "scaling", "items of one job, demo bundle", f"{items:,} items", "item",
                ms=round(1e3 * summary["seconds"] / items, 4),
                facts={"items": items, "wall_s": round(seconds, 2), "peak_mb": round(peak, 1)},
            )  # fmt: skip
    most, few = max(peaks), 500
    if few in peaks and most > few:
        yield Row(
            "scaling", "items of one job, demo bundle", f"peak memory, {most:,} items against {few}", "ratio",
            value=round(peaks[most] / peaks[few], 4), goal=MEMORY_GOAL, goal_kind="ratio",
            facts={"peak_mb": round(peaks[most], 1), "peak_mb_before": round(peaks[few], 1)},
        )  # fmt: skip


def render_of(items: int, out: Path) -> list[str]:
    """The command for `items` dyed pictures."""
    faces = -(-items // DYES_A_FACE)
    color = COLOR if items >= DYES_A_FACE else f"0:0.9:{items}" if items > 1 else "0.5"
    return ["render", "--bundle", "demo", "--faces", f"0-{faces - 1}", "--color", color, "--out", str(out), "--json"]


def measured_job(items: int, out: Path, cache: Path) -> tuple[float, float, dict[str, Any]]:
    """(wall seconds, peak resident megabytes, the command's summary) of a job."""
    # A process that does nothing but start the command and report what it took: children's peaks add up in one.
    script = (
        "import json, resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'ohlora', *sys.argv[1:]], capture_output=True, text=True)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(json.dumps([done.returncode, done.stdout, done.stderr, peak]))\n"
    )
    started = time.perf_counter()
    status, output, errors, peak = json.loads(run_python(["-c", script, *render_of(items, out)], cache))
    seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(f"a job of {items} items failed: {errors}")
    unit = 1 if sys.platform == "darwin" else 1024
    summary = json.loads(output.strip().splitlines()[-1])
    if summary["written"] != items:
        raise RuntimeError(f"a job of {items} items wrote {summary['written']}")
    return seconds, peak * unit / 1e6, summary


def run_command(arguments: Sequence[str], cache: Path) -> str:
    return run_python(["-m", "ohlora", *arguments], cache)


def run_python(arguments: Sequence[str], cache: Path) -> str:
    environment = os.environ | {CACHE_VARIABLE: str(cache)}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(arguments)[:200]}` failed: {done.stderr.strip()}")
    return done.stdout
