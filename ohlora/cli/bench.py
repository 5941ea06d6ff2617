"""`ohlora bench`: measure this machine, beside the baselines, and compare with a saved run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from ohlora.cli import options
from ohlora.cli.report import Told, note
from ohlora.errors import InvalidInputError

if TYPE_CHECKING:
    from ohlora.bench.runner.records import Row, Run
    from ohlora.bench.runner.subjects import Subject


@options.grouped
def bench(
    *,
    suite: Annotated[
        list[str] | None,
        Option(
            "--suite",
            "-s",
            help="kernels, engines, rewrites, stages, pipeline, roofline, cold-start, scaling; repeatable.",
        ),
    ] = None,
    bundle: Annotated[str, Option("--bundle", "-b", help="Bundle folder, or 'demo'.")] = "demo",
    full_size: Annotated[
        bool, Option("--full-size", help="A 256-px generator of the published size in place of a bundle.")
    ] = False,
    presets: Annotated[
        str | None, Option(help="Of exact, balanced, fast; default all with --full-size, else as given.")
    ] = None,
    quick: Annotated[bool, Option("--quick", help="Fewer rounds, forms and items: a look, no figure.")] = False,
    out: Annotated[Path | None, Option("--out", "-o", help="Folder for bench.json, report.md and plots.")] = None,
    keep: Annotated[
        bool, Option("--keep", help="Keep rows of other suites that an earlier run here left in --out.")
    ] = False,
    compare: Annotated[Path | None, Option(help="A saved bench.json; exit status 1 when this run is worse.")] = None,
    margin: Annotated[float, Option(help="Share of the speed that may be lost.", min=0.0, max=1.0)] = 0.2,
    told: Told,
) -> None:
    """Measure kernels, engines, stages and whole jobs beside their baselines, each with its accuracy.

    The documented way (eager PyTorch) and presets need the train extra; without it those rows are left out, which is
    said. Plots need matplotlib (the bench extra).

    Example: `ohlora bench --suite kernels --suite pipeline --out bench-1`
    """
    from ohlora.bench.runner.compare import compare as compare_runs
    from ohlora.bench.runner.records import Run, joined, row_id
    from ohlora.bench.runner.subjects import Options
    from ohlora.bench.suites import chosen, run_suites

    names = chosen(suite or [])
    old = None if compare is None else Run.load(compare)
    if out is not None and out.exists() and not out.is_dir():
        raise InvalidInputError(f"--out {out} is a file: give a folder")
    if keep and out is None:
        raise InvalidInputError("--keep needs --out: the folder of the earlier run")
    earlier = Run.load(out / "bench.json") if keep and out is not None else None
    subject = open_subject(bundle, full_size, presets, names)
    try:
        stream = sys.stderr if told.json else sys.stdout
        run = run_suites(Options(subject, quick), names, lambda rows: show(rows, stream))
    finally:
        subject.close()
    changes = [] if old is None else compare_runs(run, old, margin)
    if out is not None:
        write(run if earlier is None else joined(run, earlier), out)
    goals = [
        {"group": row.group, "name": row.name, "goal": row.goal, "kind": row.goal_kind, "met": row.met}
        for row in run.rows
        if row.goal is not None
    ]
    for entry in () if told.json else run.left_out:
        note(f"left out of {entry['suite']}: {entry['why']}")
    worse = any(change.regression for change in changes)
    lines = [f"goals met: {sum(bool(goal['met']) for goal in goals)} of {len(goals)}"] if goals else []
    lines += [f"{change.kind}: {' / '.join(change.row)}: {change.text}" for change in changes]
    if old is not None and not worse:
        lines.append(f"no row is worse than the saved run by more than {margin:.0%}")
    found = [{"row": list(change.row), "kind": change.kind, "text": change.text} for change in changes]
    rows = [{"id": row_id(*row.key), **row.content} for row in run.rows]
    summary = {"out": None if out is None else str(out), "rows": rows, "goals": goals, "changes": found}
    told.tell(summary, *lines, *([] if out is None else [f"-> {out}"]))
    if worse:
        raise typer.Exit(1)


def open_subject(bundle: str, full_size: bool, presets: str | None, names: list[str]) -> Subject:
    """Raises InvalidInputError for what does not go together or needs the train extra."""
    from ohlora.base.installation import install_command
    from ohlora.bench.runner.subjects import FULL_SIZE, PRESET_NAMES, Subject, bundle_subject, full_size_subject

    asked = [] if presets is None else [name.strip() for name in presets.split(",") if name.strip()]
    for name in asked:
        if name not in PRESET_NAMES:
            raise InvalidInputError(f"there is no preset '{name}': choose of {', '.join(PRESET_NAMES)}")
    if full_size and bundle != "demo":
        raise InvalidInputError("give either --bundle or --full-size: the full-size generator is a bundle of its own")

    if not {"engines", "pipeline", "roofline"} & set(names):  # no network of the subject's is run
        return Subject(FULL_SIZE, {}, None) if full_size else bundle_subject(bundle, (), note, modules=False)
    try:
        if full_size:
            return full_size_subject(asked or PRESET_NAMES, note)
        return bundle_subject(bundle, asked, note)
    except ImportError as error:
        what = "--full-size" if full_size else "--presets"
        raise InvalidInputError(f"{what} needs the train extra: {install_command('train')} ({error})") from error


def show(rows: list[Row], stream: object) -> None:
    """One group as a table."""
    from rich.console import Console
    from rich.table import Table

    from ohlora.bench.runner.report import COLUMNS, cells

    table = Table(title=f"{rows[0].suite}: {rows[0].group}", title_justify="left", show_edge=False, pad_edge=False)
    for name in COLUMNS[1:]:
        table.add_column(name, justify="left" if name in ("way", "accuracy", "goal") else "right")
    for row in rows:
        table.add_row(*cells(row))
    Console(file=stream, width=None if getattr(stream, "isatty", bool)() else 150).print(table, "")  # type: ignore[arg-type]


def write(run: Run, out: Path) -> None:
    """bench.json, report.md, plots. Without matplotlib there are no plots, which is said."""
    from ohlora.base.atomic import make_folder, write_bytes
    from ohlora.base.installation import install_command
    from ohlora.bench.runner.report import markdown

    make_folder(out)
    run.save(out / "bench.json")
    plots: list[str] = []
    try:
        from ohlora.bench.runner.plots import draw

        plots = draw(run, out)
    except ImportError as error:
        note(f"no plots: {error}; {install_command('bench')}")
    write_bytes(out / "report.md", markdown(run, plots).encode())
