"""One process per device: each takes its share of a job's items, writes its files and sends the rows to the parent,
which alone keeps the journal.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohlora.directions import Directions
from ohlora.errors import OhloraError, OutputError
from ohlora.render.device_pipeline import run_on_device
from ohlora.render.devices import DeviceSetting
from ohlora.render.job import RenderJob
from ohlora.render.pipeline import Record, Totals, run
from ohlora.render.plan import PortraitPlan
from ohlora.render.sinks import FolderSink

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
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
    messages, stop = context.Queue(maxsize=1000), context.Event()
    processes = [
        context.Process(target=_render, args=(request, device, share, messages, stop), name=f"ohlora-device-{device}")
        for device, share in zip(devices, shares, strict=True)
        if share
    ]
    for process in processes:
        process.start()
    collector = _Collector(processes, messages, record, advance)
    try:
        collector.collect()
    except BaseException:
        stop.set()
        while collector.waiting:
            with contextlib.suppress(OhloraError):
                collector.collect()
        raise
    finally:
        for process in processes:
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
    """Takes the processes' messages: rows into the record, totals together. waiting: names of those still at work."""

    def __init__(
        self, processes: Sequence[Any], messages: Queue[Any], record: Record, advance: Callable[[int], None]
    ) -> None:
        self.waiting, self.totals = {process.name for process in processes}, Totals()
        self._processes, self._messages = processes, messages
        self._record, self._advance = record, advance

    def collect(self) -> None:
        """Until every process has said that it is done. Raises the first error that one reports."""
        while self.waiting:
            try:
                kind, name, *content = self._messages.get(timeout=1.0)
            except queue.Empty:
                self._miss()
                continue
            if kind == "row":
                self._record.record(*content)
                self._advance(1)
            elif kind == "failure":
                self._record.record_failure(*content)
                self.totals.failed[content[0]] = content[1]
                self._advance(1)
            else:
                self.waiting.discard(name)
                if kind == "error":
                    raise content[0]
                written, units, undyed = content
                self.totals.written += written
                self.totals.units += units
                self.totals.undyed += undyed

    def _miss(self) -> None:
        """Raises OhloraError for a process that has ended without a word: nobody else would tell."""
        for process in self._processes:
            if process.name in self.waiting and process.exitcode is not None and self._messages.empty():
                self.waiting.discard(process.name)
                raise OhloraError(
                    f"{process.name} ended without a word (exit status {process.exitcode}; out of memory?): the same "
                    "command resumes"
                )


class _Messenger:
    """A record that sends; in the process of a device."""

    def __init__(self, name: str, messages: Queue[Any], stop: Event) -> None:
        self._name, self._messages, self._stop = name, messages, stop

    def record(self, item: int, row: dict[str, Any]) -> None:
        self._messages.put(("row", self._name, item, row))

    def record_failure(self, item: int, message: str) -> None:
        self._messages.put(("failure", self._name, item, message))

    def advance(self, outputs: int) -> None:
        parent = multiprocessing.parent_process()
        if self._stop.is_set() or (parent is not None and not parent.is_alive()):
            raise OutputError("stopped")


def _render(request: DeviceJob, device: int | None, items: list[int], messages: Queue[Any], stop: Event) -> None:
    """The process of one device."""
    from ohlora.renderer import Renderer

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and says stop
    name = f"ohlora-device-{device}"
    record = _Messenger(name, messages, stop)
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
                        plan.units(items), pipeline, sink.store, record, workers=request.workers,
                        advance=record.advance,
                    )  # fmt: skip
        messages.put(("done", name, totals.written, totals.units, totals.undyed))
    except BaseException as error:
        kind = type(error) if isinstance(error, OhloraError) else OhloraError
        messages.put(("error", name, kind(f"cuda:{device}: {error}" if device is not None else str(error))))
