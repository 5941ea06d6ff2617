"""The one job loop, whatever a job makes: images, animations or videos.

Outputs appear one by one, each complete. A job that is stopped, or killed at any moment, resumes with the same
request: what is finished stays, and the files and metadata end up as if it had run through.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ohlora.base.atomic import write_bytes
from ohlora.engines import usable_cores
from ohlora.errors import InvalidInputError, OhloraError, OutputError
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image, read_image
from ohlora.render.job import OutputFormat
from ohlora.render.journal import Journal
from ohlora.render.pipeline import Results
from ohlora.render.plan import Plan
from ohlora.render.sinks import FolderSink

SHEET_CELLS = 400
DONE, SOME_FAILED = 0, 1

Advance = Callable[[int], None]


class Executor(Protocol):
    """Makes outputs: on the CPU, on GPUs, or moving pictures one after the other.

    An ImageError fails its item alone; OutputError and anything unexpected stop the run. On an exception (Ctrl-C
    included) no new work starts, and what is under way is finished and recorded or leaves nothing behind.
    """

    def run(self, plan: Any, pending: Sequence[int], sink: FolderSink, results: Results, workers: int) -> None: ...


@dataclass(frozen=True)
class Job:
    """request: all that decides what the files are, as JSON values; equal requests resume each other.

    provenance: what every metadata row repeats (bundle, engines). output: how images are encoded. former: fields of
    `output` in the request that earlier versions did not have, and how these wrote files: their folders are resumed so.
    """

    plan: Plan
    executor: Executor
    request: Mapping[str, Any]
    provenance: Mapping[str, Any]
    output: OutputFormat = field(default_factory=OutputFormat)
    former: Mapping[str, Any] = field(default_factory=dict)


def silent(total: int, noun: str) -> AbstractContextManager[Advance]:
    return contextlib.nullcontext(lambda count: None)


@dataclass(frozen=True)
class RunOptions:
    """How a job runs; none of this changes its files.

    workers: threads that encode and write, default the usable cores. restart: start over where the folder holds
    another job. contact_sheet: also write contact_sheet.jpg, an evenly spaced choice of the images.
    progress: given how many steps there are and their noun, shows them. say: is told about a resume and a stop.
    """

    workers: int | None = None
    restart: bool = False
    contact_sheet: bool = False
    progress: Callable[[int, str], AbstractContextManager[Advance]] = silent
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class Summary:
    """What a run did. written: outputs of this run; resumed: those that were there; steps: done in `seconds`."""

    out: Path
    plan: Plan
    written: int
    resumed: int
    counts: Mapping[str, int]
    failures: list[str]
    seconds: float

    @property
    def status(self) -> int:
        """Exit status of a command."""
        return SOME_FAILED if self.failures else DONE

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
            "failures": self.failures,
        }


def execute(job: Job, out: Path, options: RunOptions | None = None) -> Summary:
    """Do what is not done yet in the folder `out`, and write metadata.jsonl: a partial one when the run is stopped.

    Raises InvalidInputError when the folder cannot be used, belongs to another job or is in use; OutputError, and what
    the executor raises, when the run stops.
    """
    options, total = options or RunOptions(), len(job.plan)
    with _open_journal(out, {**job.request, **job.provenance}, options.restart, job.former) as journal:
        output = replace(job.output, **journal.settings)
        pending = list(journal.pending(total))
        resumed = total - len(pending)
        if resumed and pending:
            options.say(f"resuming: {resumed} of {total} {job.plan.noun} are there")
        sink = FolderSink(out, output, dict(job.provenance), job.plan.mark)
        results, workers = Results(journal), options.workers or usable_cores()
        started = time.monotonic()
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
            raise stopped from None
        seconds = time.monotonic() - started
        journal.finish(total)
        rows = list(journal.finished.values()) if options.contact_sheet else []
    if rows:
        shown = rows[:: -(-len(rows) // SHEET_CELLS)]
        sheet = contact_sheet(read_image(out / row["file_name"]) for row in shown)
        mark = sink.mark_of(any(row.get("dyed") for row in shown))
        write_bytes(out / "contact_sheet.jpg", encode_image(sheet, "jpeg", 92, mark=mark))
    failures = [results.failed[item] for item in sorted(results.failed)]
    counts = {name: int(getattr(results, count)) for name, count in job.plan.counts.items()}
    return Summary(out, job.plan, results.written, resumed, counts, failures, seconds)


def _open_journal(out: Path, request: Mapping[str, Any], restart: bool, former: Mapping[str, Any]) -> Journal:
    """An output folder that cannot be used is a bad request: nothing was started."""
    try:
        return Journal.open(out, request, restart=restart, former=former)
    except OutputError as error:
        raise InvalidInputError(str(error)) from error
