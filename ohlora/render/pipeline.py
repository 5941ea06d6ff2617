"""Do the plan: pictures are made a few at a time while the finished ones are dyed, encoded and written.

At most `batch` units are between "started" and "written": that bounds memory, and it is all that a killed job
does again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Protocol

from ohlora.errors import ImageError, OhloraError, OutputError, PlaceError
from ohlora.render.plan import Output, PortraitUnit, SourceUnit
from ohlora.render.sinks import FolderSink, Picture

# Outputs of one unit are written in tasks of this many: enough to keep all workers busy on one face's sweep,
# few enough that a task is not all overhead.
OUTPUTS_PER_TASK = 8


class Producer(Protocol):
    """Makes the pictures of some units. An error in place of a picture fails that unit only."""

    def calls(self, batch: int) -> tuple[int, int]:
        """(units of a call, calls at once) that are fastest where at most `batch` units may be under way."""

    def produce(self, units: Sequence[Any]) -> list[Picture | ImageError]: ...


class Record(Protocol):
    """Where finished and failed items are noted; called from several threads."""

    def record(self, item: int, row: dict[str, Any]) -> None: ...
    def record_failure(self, item: int, message: str) -> None: ...


@dataclass
class Results:
    """Notes finished and failed items in the record, counts them, and tells `advance`; called from several threads.

    units: portraits made, photographs read or frames written. undyed: outputs that show no hair to dye. failed: item ->
    message.
    """

    record: Record
    advance: Callable[[int], None] = lambda steps: None
    written: int = 0
    units: int = 0
    undyed: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def done(self, item: int, row: dict[str, Any], steps: int = 1) -> None:
        """An output that is in place."""
        self.record.record(item, row)
        with self._lock:
            self.written += 1
            self.undyed += row.get("ombre") is not None and not row.get("dyed", True)
        self.advance(steps)

    def fail(self, item: int, message: str, steps: int = 1) -> None:
        """An output that cannot be made; the others go on."""
        self.record.record_failure(item, message)
        with self._lock:
            self.failed[item] = message
        self.advance(steps)


class WritePool:
    """Workers that write outputs. Use as a context manager: on an exception (Ctrl-C included) no new work starts, work
    under way is finished and recorded.
    """

    def __init__(self, results: Results, workers: int) -> None:
        self._results, self._stop = results, threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="ohlora-write")
        self._pending: dict[Future[None], int] = {}  # task -> number of what it belongs to
        self._left: dict[int, int] = {}  # number -> its unfinished tasks

    def put(
        self,
        number: int,
        outputs: Sequence[Output],
        write: Callable[[Output], dict[str, Any]],
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Start writing `outputs` of `number`. write: returns a metadata row. then: called once all are done."""
        parts = [outputs[start : start + OUTPUTS_PER_TASK] for start in range(0, len(outputs), OUTPUTS_PER_TASK)]
        left, lock = len(parts), threading.Lock()

        def done(task: Future[None]) -> None:
            nonlocal left
            with lock:
                left -= 1
                last = left == 0
            if last:
                then()

        for part in parts:
            task = self._pool.submit(self.write, part, write)
            task.add_done_callback(done)
            self._pending[task] = number
            self._left[number] = self._left.get(number, 0) + 1

    def write(self, outputs: Sequence[Output], write: Callable[[Output], dict[str, Any]]) -> None:
        """Write on the calling thread: where a unit has few outputs, handing them over costs more than it gains."""
        for output in outputs:
            if self._stop.is_set():
                return
            try:
                row = write(output)
            except PlaceError as error:
                self._results.fail(output.item, str(error))
            except OutputError:
                raise
            except OhloraError as error:
                self._results.fail(output.item, str(error))
            else:
                self._results.done(output.item, row)

    def wait_until(self, most: int) -> None:
        """Until at most `most` numbers are unwritten. Raises what stopped a worker."""
        while self._pending and len(self._left) > most:
            finished, _ = wait(self._pending, return_when=FIRST_COMPLETED)
            for task in finished:
                number = self._pending.pop(task)
                self._left[number] -= 1
                if not self._left[number]:
                    del self._left[number]
                task.result()

    def __enter__(self) -> WritePool:
        self._pool.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self._stop.set()
            for task in self._pending:
                task.cancel()
        self._pool.__exit__(kind, error, trace)


@dataclass(frozen=True)
class CpuExecutor:
    """An executor (`run_items.Executor`) of images: `run` with this producer. batch: units under way at once."""

    producer: Producer
    batch: int = 8

    def run(self, plan: Any, pending: Collection[int], sink: FolderSink, results: Results, workers: int) -> None:
        run(plan.units(pending), self.producer, sink, results, batch=self.batch, workers=workers)


def run(
    units: Iterable[PortraitUnit | SourceUnit],
    producer: Producer,
    sink: FolderSink,
    results: Results,
    *,
    batch: int = 8,
    workers: int = 2,
) -> None:
    """Run all units. An ImageError or PlaceError fails its item; any other OutputError and what is unexpected stop the
    run.

    On an exception (Ctrl-C included) no new work starts, work under way is finished and recorded, then it is raised.
    """
    source = iter(units)
    size, at_once = producer.calls(batch)
    # Where calls are small, one more than are being made waits, so that no maker does.
    most = min(batch, max(at_once + 1, size))
    ahead: deque[tuple[list[PortraitUnit | SourceUnit], Future[list[Picture | ImageError | None]]]] = deque()

    with WritePool(results, workers) as pool, _makers(at_once) as makers:

        def make(group: Sequence[PortraitUnit | SourceUnit]) -> list[Picture | ImageError | None]:
            made: list[Picture | ImageError | None] = list(producer.produce(group))
            if at_once == 1:  # the only maker shall go on making
                return made
            for place, (unit, picture) in enumerate(zip(group, made, strict=True)):
                if isinstance(picture, Picture) and len(unit.outputs) <= OUTPUTS_PER_TASK:
                    pool.write(unit.outputs, partial(sink.write, picture))
                    made[place] = None
            return made

        while True:
            while (free := most - sum(len(group) for group, _ in ahead)) >= size:
                if not (group := list(islice(source, size))):
                    break
                pool.wait_until(batch - (most - free) - len(group))
                ahead.append((group, makers.submit(make, group)))
            if not ahead:
                break
            group, making = ahead.popleft()
            for unit, picture in zip(group, making.result(), strict=True):
                results.units += 1
                if picture is None:  # written by its maker
                    continue
                if isinstance(picture, ImageError):
                    for output in unit.outputs:
                        results.fail(output.item, str(picture))
                    continue
                pool.put(results.units, unit.outputs, partial(sink.write, picture))
        pool.wait_until(0)


@contextmanager
def _makers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that make pictures; what they have not begun is dropped at the end."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="ohlora-make")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
