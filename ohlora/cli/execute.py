"""Run a job (`render.run_items`) as a command does: progress, summary, exit status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from ohlora.cli.progress import Progress
from ohlora.cli.report import Run, note
from ohlora.render.run_items import Advance, Job, JobInterrupted, RunOptions, Summary, execute


def run_job(job: Job, how: Run, *, workers: int | None = None, contact_sheet: bool = False) -> NoReturn:
    """Do what is not done yet, print what happened, and raise typer.Exit with the status. On Ctrl-C and SIGTERM too."""

    @contextmanager
    def progress(total: int, noun: str) -> Iterator[Advance]:
        with Progress(total, noun) as shown:
            yield shown.advance

    try:
        summary = execute(job, how.out, RunOptions(workers, how.restart, contact_sheet, progress, note))
    except JobInterrupted as stopped:
        summary = stopped.summary
    how.end(summary.to_json(), summary.failures, _line(summary), status=summary.status)


def _line(summary: Summary) -> str:
    noun, step = summary.plan.noun, summary.plan.step
    counts = dict(summary.counts)
    undyed = counts.pop("without_hair", 0)
    speed = f"{summary.rate:.1f}{'' if step == noun else f' {step}'}/s"
    said = "interrupted: " if summary.interrupted else ""
    parts = [f"{said}{summary.written} {noun} in {summary.seconds:.1f} s ({speed}) -> {summary.out}"]
    parts += [f"{summary.resumed} were there already"] if summary.resumed else []
    parts += [f"{len(summary.failures)} failed"] if summary.failures else []
    parts += [f"{undyed} show no hair and were left as they are"] if undyed else []
    return "; ".join(parts + [f"{count} {name.replace('_', ' ')}" for name, count in counts.items()])
