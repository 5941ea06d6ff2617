"""One process per device: each takes its share of a job's items, writes its files and sends the rows to the parent,
which alone keeps the journal.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohlora.errors import OhloraError, OutputError
from ohlora.latents.directions import Directions
from ohlora.render.gpu.devices import DeviceSetting
from ohlora.render.gpu.pipeline import run_on_device
from ohlora.render.job import RenderJob
from ohlora.render.pipeline import Record, Totals, run
from ohlora.render.plan import PortraitPlan
from ohlora.render.sinks import FolderSink

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event


@dataclass(frozen=True)
class DeviceJob:
    """All that a process needs. device None: the CPU, which tests use."""

    bundle: Path
    job: RenderJob
    out: Path
    provenance: dict[str, Any]
    directions: Directions | None
    setting: DeviceSetting
    workers: int


def run_on_devices(
    request: DeviceJob,
    devices: Sequence[int | None],
    pending: Sequence[int],
    record: Record,
    advance: Callable[[int], None] = lambda outputs: None,
) -> Totals:
    """Render items `pending` of the job, a share on each of `devices`. Raises what the first failing process raised;
    the others then finish what they have begun. On Ctrl-C likewise.
    """
    shares = cut(pending, len(request.job.looks), len(devices))
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    stop = context.Event()
    processes: dict[Connection, Any] = {}
    for number, (device, share) in enumerate(zip(devices, shares, strict=True)):
        if share:
            # A pipe each: a process that is killed while it writes leaves the others' alone.
            here, there = context.Pipe(duplex=False)
            process = context.Process(
                target=_render, args=(request, device, share, there, stop), name=f"ohlora-device-{number}"
            )
            process.start()
            there.close()  # the process has its own; when that ends, so does the pipe
            processes[here] = process
    collector = _Collector(processes, record, advance)
    try:
        collector.collect()
    except BaseException:
        stop.set()
        while collector.waiting:
            with contextlib.suppress(OhloraError):
                collector.collect()
        raise
    finally:
        for process in processes.values():
            process.join()
    return collector.totals


def cut(pending: Sequence[int], looks: int, parts: int) -> list[list[int]]:
    """Items in `parts` shares of about one size; all items of a face stay together, so that it is made once."""
    faces: dict[int, list[int]] = {}
    for item in pending:
        faces.setdefault(item // looks, []).append(item)
    shares: list[list[int]] = [[] for _ in range(parts)]
    goal = -(-len(pending) // parts)
    at = 0
    for items in faces.values():
        if len(shares[at]) >= goal and at + 1 < parts:
            at += 1
        shares[at].extend(items)
    return shares


class _Collector:
    """Takes the processes' messages: rows into the record, totals together. waiting: pipes of those still at work."""

    def __init__(self, processes: Mapping[Connection, Any], record: Record, advance: Callable[[int], None]) -> None:
        self.waiting, self.totals = set(processes), Totals()
        self._processes, self._record, self._advance = processes, record, advance

    def collect(self) -> None:
        """Until every process has said that it is done. Raises the first error that one reports."""
        while self.waiting:
            for pipe in wait(list(self.waiting)):
                assert isinstance(pipe, Connection)
                self._take(pipe)

    def _take(self, pipe: Connection) -> None:
        try:
            kind, *content = pipe.recv()
        except (EOFError, OSError):
            self.waiting.discard(pipe)
            process = self._processes[pipe]
            process.join()
            raise OhloraError(
                f"{process.name} ended without a word (exit status {process.exitcode}; out of memory?): the same "
                "command resumes"
            ) from None
        if kind == "row":
            self._record.record(*content)
            self._advance(1)
        elif kind == "failure":
            self._record.record_failure(*content)
            self.totals.failed[content[0]] = content[1]
            self._advance(1)
        else:
            self.waiting.discard(pipe)
            if kind == "error":
                raise content[0]
            written, units, undyed = content
            self.totals.written += written
            self.totals.units += units
            self.totals.undyed += undyed


class _Messenger:
    """A record that sends; in the process of a device."""

    def __init__(self, pipe: Connection, stop: Event) -> None:
        self._pipe, self._stop, self._lock = pipe, stop, threading.Lock()

    def send(self, *message: Any) -> None:
        with self._lock:
            self._pipe.send(message)

    def record(self, item: int, row: dict[str, Any]) -> None:
        self.send("row", item, row)

    def record_failure(self, item: int, message: str) -> None:
        self.send("failure", item, message)

    def advance(self, outputs: int) -> None:
        if self._stop.is_set():
            raise OutputError("stopped")


def _render(request: DeviceJob, device: int | None, items: list[int], pipe: Connection, stop: Event) -> None:
    """The process of one device."""
    from ohlora.render.renderer import Renderer

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and says stop
    record = _Messenger(pipe, stop)
    try:
        plan = PortraitPlan(request.job)
        sink = FolderSink(request.out, request.job.output, dict(request.provenance))
        with Renderer(request.bundle, directions=request.directions) as renderer:
            if device is None:
                producer = renderer.producer(request.job)
                totals = run(plan.units(items), producer, sink, record, workers=request.workers, advance=record.advance)
            else:
                pipeline = renderer.device_pipeline(request.job, device, request.setting)
                with contextlib.closing(pipeline):
                    totals = run_on_device(
                        plan.units(items), pipeline, sink, record, workers=request.workers,
                        advance=record.advance,
                    )  # fmt: skip
        record.send("done", totals.written, totals.units, totals.undyed)
    except BaseException as error:
        kind = type(error) if isinstance(error, OhloraError) else OhloraError
        with contextlib.suppress(OSError):  # the parent is gone
            record.send("error", kind(f"cuda:{device}: {error}" if device is not None else str(error)))
