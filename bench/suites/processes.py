"""Whole commands in processes of their own: start-up to the first file; time and memory by the number of items."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from ohlora.bench.runner.jobs import Folders
from ohlora.bench.runner.processes import Finished, measured_command, run_command, run_python
from ohlora.bench.runner.records import Row
from ohlora.bench.runner.subjects import Options
from ohlora.bench.runner.timing import Group, Work

COLD_GOAL, MEMORY_GOAL = 3.0, 1.1
DYES_A_FACE = 50
COLOR = "0:0.98:50"


def cold_start_groups(options: Options) -> Iterator[Group]:
    """`ohlora render --bundle demo --faces 7` until the process has ended, its file written."""
    stack = ExitStack()
    folders = stack.enter_context(Folders())
    filled = folders.new()

    def first_file(cache: Path, *more: str) -> None:
        run_command(["render", "--bundle", "demo", "--faces", "7", "--out", str(folders.new()), *more], cache)

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
            done = measured_job(items, folders.new(), cache)
            peaks[items] = done.peak / 1e6
            yield Row(
                "scaling", "items of one job, demo bundle", f"{items:,} items", "item",
                ms=round(1e3 * done.summary["seconds"] / items, 4),
                facts={"items": items, "wall_s": round(done.wall_s, 2), "peak_mb": round(peaks[items], 1)},
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
    return ["render", "--bundle", "demo", "--faces", f"0-{faces - 1}", "--color", color, "--out", str(out)]


def measured_job(items: int, out: Path, cache: Path) -> Finished:
    """A job of `items` pictures. Raises RuntimeError when it fails or writes others."""
    done = measured_command(render_of(items, out), cache)
    if done.summary["written"] != items:
        raise RuntimeError(f"a job of {items} items wrote {done.summary['written']}")
    return done
