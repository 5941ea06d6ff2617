"""Portraits on GPUs: one in this process, several by a process each, which takes its share of a job's items, writes its
files and sends the rows to the parent, which alone keeps the journal.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ohlora.base.types import Compat
from ohlora.engines.gpu.device import backend_for, engine_of
from ohlora.errors import OhloraError, OutputError
from ohlora.io.marking import Mark
from ohlora.latents.directions import Directions
from ohlora.render.gpu.devices import DeviceSetting
from ohlora.render.gpu.encode import check_encoder
from ohlora.render.gpu.pipeline import run_on_device
from ohlora.render.job import OutputFormat, RenderJob
from ohlora.render.pipeline import Results, run
from ohlora.render.plan import PortraitPlan
from ohlora.render.renderer import Renderer
from ohlora.render.sinks import FolderSink

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event


@dataclass(frozen=True)
class DeviceExecutor:
    """An executor (`run_items.Executor`) on devices of these numbers. None: the CPU, which tests use.

    Raises InvalidInputError and EngineError for settings that do not go together or need what is not installed.
    """

    renderer: Renderer
    job: RenderJob
    devices: Sequence[int | None]
    setting: DeviceSetting

    def __post_init__(self) -> None:
        check_encoder(self.setting.encoder, self.job.output)

    def provenance(self) -> dict[str, Any]:
        """As `Renderer.provenance`. The number of the device and how many there are make no difference."""
        bundle, setting = self.renderer.bundle, self.setting
        engine = f"{backend_for(setting.backend, setting.precision, setting.engines)}-{setting.precision}"
        if setting.engines is not None:  # each build is one of a kind, of its own precision
            _, built = engine_of(bundle.file(bundle.generator_part().synthesis), setting.engines)
            engine = f"tensorrt-{built.precision}-{built.engine_sha256[:12]}"
        row: dict[str, Any] = {"bundle": bundle.name, "bundle_sha256": bundle.identity, "engine": f"{engine} on cuda"}
        row |= {**self.renderer.noise_record, **self.renderer.compat_record()}
        return row if setting.encoder == "cpu" else {**row, "encoder": setting.encoder}

    def run(
        self,
        plan: PortraitPlan,
        pending: Collection[int],
        sink: FolderSink,
        results: Results,
        workers: int,
    ) -> None:
        """Render items `pending`, a share on each device. Raises what the first failing process raised; the others
        then finish what they have begun. On Ctrl-C likewise.
        """
        if len(self.devices) > 1:
            self._share_out(pending, sink, results, max(1, workers // len(self.devices)))
        elif (device := self.devices[0]) is None:
            run(plan.units(pending), self.renderer.producer(self.job), sink, results, workers=workers)
        else:
            with contextlib.closing(self.renderer.device_pipeline(self.job, device, self.setting)) as pipeline:
                run_on_device(plan.units(pending), pipeline, sink, results, workers=workers)

    def _share_out(self, pending: Collection[int], sink: FolderSink, results: Results, workers: int) -> None:
        made_of = (sink.folder, sink.output, sink.provenance, sink.mark)
        bundle, directions = self.renderer.bundle.path, self.renderer.directions_override
        noise, compat = self.renderer.noise, self.renderer.compat
        share = _Share(bundle, directions, noise, compat, self.job, self.setting, made_of, workers)
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        stop = context.Event()
        processes: dict[Any, Any] = {}
        for number, items in enumerate(cut(pending, len(self.job.looks), len(self.devices))):
            if items:
                # A pipe each: a process that is killed while it writes leaves the others' alone.
                here, there = context.Pipe(duplex=False)
                arguments = (share, self.devices[number], items, there, stop)
                process = context.Process(target=_render_share, args=arguments, name=f"ohlora-device-{number}")
                process.start()
                there.close()  # the process has its own; when that ends, so does the pipe
                processes[here] = process
        waiting, stopped = dict(processes), None
        try:
            while waiting:
                try:
                    for pipe in wait(list(waiting)):
                        _take(pipe, waiting, results)
                except BaseException as error:
                    if stopped is not None and not isinstance(error, OhloraError):
                        raise
                    stopped = stopped or error
                    stop.set()
        finally:
            for process in processes.values():
                process.join()
        if stopped is not None:
            raise stopped


def cut(pending: Collection[int], looks: int, parts: int) -> list[list[int]]:
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


def _take(pipe: Any, waiting: dict[Any, Any], results: Results) -> None:
    """A message of one process: a row, or at its end how many portraits it made. Raises the error that ended it."""
    try:
        kind, *content = pipe.recv()
    except (EOFError, OSError):
        process = waiting.pop(pipe)
        process.join()
        raise OhloraError(
            f"{process.name} ended without a word (exit status {process.exitcode}; out of memory?): the same command "
            "resumes"
        ) from None
    if kind == "row":
        results.done(*content)
    elif kind == "failure":
        results.fail(*content)
    else:
        del waiting[pipe]
        if kind == "error":
            raise content[0]
        results.units += content[0]


# In the process of a device


@dataclass(frozen=True)
class _Share:
    """What a process needs besides its items. sink: what its own FolderSink is made of."""

    bundle: Path
    directions: Directions | None
    noise: int | None
    compat: Compat | None
    job: RenderJob
    setting: DeviceSetting
    sink: tuple[Path, OutputFormat, dict[str, Any], Mark]
    workers: int


class _Messenger:
    """A record that sends."""

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


def _render_share(share: _Share, device: int | None, items: list[int], pipe: Connection, stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and says stop
    record = _Messenger(pipe, stop)
    try:
        noise: int | Literal["fixed"] = "fixed" if share.noise is None else share.noise
        with Renderer(share.bundle, directions=share.directions, noise=noise, compat=share.compat) as renderer:
            alone = DeviceExecutor(renderer, share.job, [device], share.setting)
            results = Results(record, record.advance)
            alone.run(PortraitPlan(share.job), items, FolderSink(*share.sink), results, share.workers)
        record.send("done", results.units)
    except BaseException as error:
        kind = type(error) if isinstance(error, OhloraError) else OhloraError
        with contextlib.suppress(OSError):  # the parent is gone
            record.send("error", kind(f"cuda:{device}: {error}" if device is not None else str(error)))
