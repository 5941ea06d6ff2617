"""The one job loop, whatever a job makes: images, animations or videos.

Outputs appear one by one, each complete. A job that is stopped, or killed at any moment, resumes with the same
request: what is finished stays, and the files and metadata end up as if it had run through.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from ohlora.base.atomic import write_bytes
from ohlora.engines import usable_cores
from ohlora.errors import InvalidInputError, OhloraError, OutputError
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image, read_image
from ohlora.render.job import OutputFormat
from ohlora.render.journal import RECORD_FOLDER, Journal, read_entries
from ohlora.render.pipeline import Results
from ohlora.render.plan import Plan
from ohlora.render.sinks import FolderSink

SHEET_CELLS = 400
MAX_OUTPUTS = 100_000_000
DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130
_SHEET = re.compile(r"contact_sheet(_\d+)?\.jpg")

Advance = Callable[[int], None]


class Executor(Protocol):
    """Makes outputs: on the CPU, on GPUs, or moving pictures one after the other.

    An ImageError fails its item alone; OutputError and anything unexpected stop the run. On an exception (Ctrl-C
    included) no new work starts, and what is under way is finished and recorded or leaves nothing behind.
    """

    def run(self, plan: Any, pending: Collection[int], sink: FolderSink, results: Results, workers: int) -> None: ...


@dataclass(frozen=True)
class Job:
    """request: all that decides what the files are, as JSON values; equal requests resume each other.

    provenance: what every metadata row repeats (bundle, engines). output: how images are encoded. former: fields of
    `output` in the request that earlier versions did not have, and how these wrote files: their folders are resumed so.
    Raises InvalidInputError for more than MAX_OUTPUTS.
    """

    plan: Plan
    executor: Executor
    request: Mapping[str, Any]
    provenance: Mapping[str, Any]
    output: OutputFormat = field(default_factory=OutputFormat)
    former: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_size(len(self.plan), self.plan.noun)


def check_size(outputs: int, noun: str) -> None:
    """Raises InvalidInputError for more outputs than one folder and its journal can hold."""
    if outputs > MAX_OUTPUTS:
        raise InvalidInputError(
            f"{outputs:,} {noun} asked for; the limit of one job is {MAX_OUTPUTS:,}: split it into several folders"
        )


def silent(total: int, noun: str) -> AbstractContextManager[Advance]:
    return contextlib.nullcontext(lambda count: None)


@dataclass(frozen=True)
class RunOptions:
    """How a job runs; none of this changes its files.

    workers: threads that encode and write, default the usable cores. restart: start over where the folder holds
    another job. contact_sheet: also write contact_sheet.jpg, an evenly spaced choice of the images; with a number
    where an image has this name.
    progress: given how many steps there are and their noun, shows them. say: is told about a resume and a stop.
    """

    workers: int | None = None
    restart: bool = False
    contact_sheet: bool = False
    progress: Callable[[int, str], AbstractContextManager[Advance]] = silent
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class Summary:
    """What a run did. written: outputs of this run; resumed: those that were there; steps: done in `seconds`.

    interrupted: by Ctrl-C or SIGTERM, before all was done.
    """

    out: Path
    plan: Plan
    written: int
    resumed: int
    counts: Mapping[str, int]
    failures: list[str]
    seconds: float
    interrupted: bool = False

    @property
    def status(self) -> int:
        """Exit status of a command."""
        return INTERRUPTED if self.interrupted else SOME_FAILED if self.failures else DONE

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.counts.get(self.plan.step, self.written) / max(self.seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            self.plan.noun: len(self.plan),
            "written": self.written,
            "already_there": self.resumed,
            "failed": len(self.failures),
            **self.counts,
            "seconds": round(self.seconds, 3),
            f"{self.plan.step}_per_second": round(self.rate, 2),
            "interrupted": self.interrupted,
            "failures": self.failures,
        }


class JobInterrupted(KeyboardInterrupt):
    """A job was stopped by Ctrl-C or SIGTERM; the same job resumes. summary: what it did until then."""

    def __init__(self, summary: Summary) -> None:
        super().__init__()
        self.summary = summary


def execute(job: Job, out: Path, options: RunOptions | None = None) -> Summary:
    """Do what is not done yet in the folder `out`, and write metadata.jsonl: a partial one when the run is stopped.

    Raises InvalidInputError when the folder cannot be used, belongs to another job or is in use; JobInterrupted,
    OutputError, and what the executor raises, when the run stops.
    """
    options, total = options or RunOptions(), len(job.plan)
    with _open_journal(out, {**job.request, **job.provenance}, options.restart, job.former) as journal:
        output = replace(job.output, **journal.settings)
        if unusable := journal.drop_foreign(total):
            options.say(
                f"{unusable} lines in {out / RECORD_FOLDER} are damaged or not of this job: they count for nothing, "
                f"and {job.plan.noun} they stood for are made again"
            )
        pending = journal.pending(total)
        resumed = total - len(pending)
        if resumed and pending:
            options.say(f"resuming: {resumed} of {total} {job.plan.noun} are there")
        sink = FolderSink(out, output, dict(job.provenance), job.plan.mark)
        results, workers = Results(journal), options.workers or usable_cores()
        started = time.monotonic()

        def summary(interrupted: bool = False) -> Summary:
            seconds = time.monotonic() - started
            failures = [results.failed[item] for item in sorted(results.failed)]
            counts = {name: int(getattr(results, counted)) for name, counted in job.plan.counts.items()}
            return Summary(out, job.plan, results.written, resumed, counts, failures, seconds, interrupted)

        try:
            with options.progress(job.plan.steps(pending), job.plan.step) as advance:
                results.advance = advance
                job.executor.run(job.plan, pending, sink, results, workers)
        except (KeyboardInterrupt, OhloraError) as stopped:
            # A disk that is full refuses this too; the journal holds all that metadata.jsonl would say.
            with contextlib.suppress(OutputError):
                journal.finish()
            if not isinstance(stopped, InvalidInputError):
                done = len(journal.finished)
                options.say(f"stopped: {done} of {total} {job.plan.noun} are done; the same command resumes")
            if isinstance(stopped, KeyboardInterrupt):
                raise JobInterrupted(summary(interrupted=True)) from None
            raise stopped from None
        result = summary()
        journal.finish(total)
        rows = list(journal.finished.values()) if options.contact_sheet else []
    if rows:
        shown = rows[:: -(-len(rows) // SHEET_CELLS)]
        sheet = contact_sheet(read_image(out / row["file_name"]) for row in shown)
        mark = sink.mark_of(any(row.get("dyed") for row in shown))
        write_bytes(out / _sheet_name(row["file_name"] for row in rows), encode_image(sheet, "jpeg", 92, mark=mark))
    return result


def _sheet_name(outputs: Iterable[str]) -> str:
    """A name that no output has, on file systems where case does not count either."""
    taken = {name.casefold() for name in outputs if name.casefold().startswith("contact_sheet")}
    names = (f"contact_sheet{'' if number == 1 else f'_{number}'}.jpg" for number in count(1))
    return next(name for name in names if name not in taken)


def is_contact_sheet(path: Path) -> bool:
    """Whether a file is the contact sheet of the job in its folder, not one of the job's outputs."""
    if not _SHEET.fullmatch(path.name) or not (path.parent / RECORD_FOLDER / "journal.jsonl").is_file():
        return False
    rows = (entry["row"] for entry in read_entries(path.parent) if entry is not None and "row" in entry)
    return all(row.get("file_name") != path.name for row in rows)


def _open_journal(out: Path, request: Mapping[str, Any], restart: bool, former: Mapping[str, Any]) -> Journal:
    """An output folder that cannot be used is a bad request: nothing was started."""
    try:
        return Journal.open(out, request, restart=restart, former=former)
    except OutputError as error:
        raise InvalidInputError(str(error)) from error
