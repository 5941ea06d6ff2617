"""Run a job (`render.run_items`) as a command does: progress, summary, exit status."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from ohlora.cli.options import Run
from ohlora.cli.progress import Progress, show_failures
from ohlora.render.run_items import Advance, Job, RunOptions, Summary, execute


def run_job(job: Job, how: Run, *, workers: int | None = None, contact_sheet: bool = False) -> NoReturn:
    """Do what is not done yet, print what happened, and raise typer.Exit with the status."""

    @contextmanager
    def progress(total: int, noun: str) -> Iterator[Advance]:
        with Progress(total, noun, quiet=how.json and not sys.stderr.isatty()) as shown:
            yield shown.advance

    options = RunOptions(workers, how.restart, contact_sheet, progress, lambda line: print(line, file=sys.stderr))
    summary = execute(job, how.out, options)
    if how.json:
        typer.echo(json.dumps(summary.to_json()))
    else:
        show(summary)
    raise typer.Exit(summary.status)


def show(summary: Summary) -> None:
    """The summary as lines for people; failures on standard error."""
    show_failures(summary.failures)
    noun, step = summary.plan.noun, summary.plan.step
    counts = dict(summary.counts)
    undyed = counts.pop("without_hair", 0)
    speed = f"{summary.seconds:.1f} s ({summary.rate:.1f}{'' if step == noun else f' {step}'}/s)"
    parts = [f"{summary.written} {noun} in {speed} -> {summary.out}"]
    parts += [f"{summary.resumed} were there already"] if summary.resumed else []
    parts += [f"{len(summary.failures)} failed"] if summary.failures else []
    parts += [f"{undyed} show no hair and were left as they are"] if undyed else []
    parts += [f"{value} {name.replace('_', ' ')}" for name, value in counts.items()]
    typer.echo("; ".join(parts))
