"""Run a planned job in an output folder: journal, progress, contact sheet, summary, exit status."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import typer

from ohlora.base.atomic import write_bytes
from ohlora.cli.progress import Progress
from ohlora.engines import usable_cores
from ohlora.errors import InvalidInputError, OutputError
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image, read_image
from ohlora.render.job import OutputFormat
from ohlora.render.journal import Journal
from ohlora.render.pipeline import Producer, Record, Totals, run
from ohlora.render.plan import PhotoPlan, PortraitPlan
from ohlora.render.sinks import FolderSink

SHEET_CELLS = 400
SHOWN_FAILURES = 20


@dataclass(frozen=True)
class Setting:
    """How a job runs; none of this changes its files."""

    batch: int
    workers: int | None
    restart: bool
    sheet: bool
    as_json: bool


class Work(Protocol):
    """Does the items `pending` of `plan`: `run` with a producer, or a device's own way."""

    def __call__(
        self,
        plan: Any,
        pending: Sequence[int],
        sink: FolderSink,
        record: Record,
        workers: int,
        advance: Callable[[int], None],
    ) -> Totals: ...


def execute(
    plan: PortraitPlan | PhotoPlan,
    producer: Producer[Any] | Work,
    out: Path,
    output: OutputFormat,
    provenance: Mapping[str, Any],
    request: Mapping[str, Any],
    setting: Setting,
    extra: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Do what is not done yet, write metadata.jsonl, print the summary. Raises typer.Exit with the status.

    producer: makes the pictures that workers dye, or does all the work. extra: called at the end for more entries of
    the summary.
    """
    with open_journal(out, request, setting.restart) as journal:
        pending = list(journal.pending(len(plan)))
        resumed = len(plan) - len(pending)
        if resumed and pending:
            print(f"resuming: {resumed} of {len(plan)} images are there", file=sys.stderr)
        sink = FolderSink(out, output, dict(provenance))
        progress = Progress(len(pending), "images", quiet=setting.as_json and not sys.stderr.isatty())
        try:
            with progress:
                workers = setting.workers or usable_cores()
                if isinstance(producer, Producer):
                    totals = run(
                        plan.units(pending),
                        producer,
                        sink,
                        journal,
                        batch=setting.batch,
                        workers=workers,
                        advance=progress.advance,
                    )
                else:
                    totals = producer(plan, pending, sink, journal, workers, progress.advance)
        except (KeyboardInterrupt, OutputError) as stopped:
            finished = len(journal.finished)
            # A disk that is full refuses this too; the journal holds all that metadata.jsonl would say.
            with contextlib.suppress(OutputError):
                journal.finish(partial=True)
            print(
                f"stopped: {finished} of {len(plan)} images are done; the same command resumes",
                file=sys.stderr,
            )
            raise stopped from None
        journal.finish(len(plan), partial=bool(totals.failed))
        files = [out / row["file_name"] for row in journal.finished.values()] if setting.sheet else []
    if files:
        write_sheet(out / "contact_sheet.jpg", files)
    summarise(out, len(plan), resumed, totals, progress, setting.as_json, extra())


def open_journal(out: Path, request: Mapping[str, Any], restart: bool) -> Journal:
    """An output folder that cannot be used is a bad request: nothing was started."""
    try:
        return Journal.open(out, request, restart=restart)
    except OutputError as error:
        raise InvalidInputError(str(error)) from error


def write_sheet(path: Path, files: list[Path]) -> None:
    """An evenly spaced choice of the results, as one picture."""
    step = max(1, -(-len(files) // SHEET_CELLS))
    write_bytes(path, encode_image(contact_sheet(read_image(file) for file in files[::step]), "jpeg", 92))


def summarise(
    out: Path,
    total: int,
    resumed: int,
    totals: Totals,
    progress: Progress,
    as_json: bool,
    extra: Mapping[str, Any],
) -> None:
    """Print what happened and raise typer.Exit(0 or 1)."""
    failures = [totals.failed[item] for item in sorted(totals.failed)]
    if as_json:
        summary = {
            "out": str(out),
            "images": total,
            "written": totals.written,
            "already_there": resumed,
            "failed": len(failures),
            "without_hair": totals.undyed,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(totals.written / max(progress.seconds, 1e-9), 2),
            **extra,
            "failures": failures,
        }
        typer.echo(json.dumps(summary))
    else:
        for message in failures[:SHOWN_FAILURES]:
            print(f"failed: {message}", file=sys.stderr)
        if len(failures) > SHOWN_FAILURES:
            print(f"... and {len(failures) - SHOWN_FAILURES} more; --json lists them all", file=sys.stderr)
        parts = [f"{totals.written} images in {progress.seconds:.1f} s ({progress.rate:.1f}/s) -> {out}"]
        parts += [f"{resumed} were there already"] if resumed else []
        parts += [f"{len(failures)} failed"] if failures else []
        parts += [f"{totals.undyed} show no hair and were left as they are"] if totals.undyed else []
        parts += [f"{value} {key.replace('_', ' ')}" for key, value in extra.items() if isinstance(value, int)]
        typer.echo("; ".join(parts))
    raise typer.Exit(1 if failures else 0)
