"""Do the plan: pictures are made a few at a time while the finished ones are dyed, encoded and written.

At most `batch` units are between "started" and "written": that bounds memory, and it is all that a killed job
does again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

from ohlora.base.types import Rgb
from ohlora.errors import ImageError, OhloraError, OutputError
from ohlora.photos.heads import HeadMask
from ohlora.render.plan import Output, PhotoUnit, PortraitUnit

# Outputs of one unit are written in tasks of this many: enough to keep all workers busy on one face's sweep,
# few enough that a task is not all overhead.
OUTPUTS_PER_TASK = 8

UnitT = TypeVar("UnitT", PortraitUnit, PhotoUnit, contravariant=True)


@dataclass(frozen=True, slots=True)
class Picture:
    """What a unit's outputs are dyed from. image: uint8 RGB [H,W,3]. heads: the hair of each person in it, none when
    no dye is asked.
    """

    image: Rgb
    facts: dict[str, Any]
    heads: tuple[HeadMask, ...] = ()


class Producer(Protocol[UnitT]):
    """Makes the pictures of some units. An error in place of a picture fails that unit only."""

    def calls(self, batch: int) -> tuple[int, int]:
        """(units of a call, calls at once) that are fastest where at most `batch` units may be under way."""

    def produce(self, units: Sequence[UnitT]) -> list[Picture | ImageError]: ...


class Writer(Protocol):
    """Turns a picture into an output's file. Returns the metadata row."""

    def write(self, picture: Picture, output: Output) -> dict[str, Any]: ...


class Record(Protocol):
    """Where finished and failed items are noted; called from several threads."""

    def record(self, item: int, row: dict[str, Any]) -> None: ...
    def record_failure(self, item: int, message: str) -> None: ...


@dataclass
class Totals:
    """What a run did. failed: item -> message."""

    written: int = 0
    units: int = 0
    undyed: int = 0
    failed: dict[int, str] = field(default_factory=dict)


class WritePool:
    """Workers that write outputs, note them in the record and count them. Use as a context manager: on an exception
    (Ctrl-C included) no new work starts, work under way is finished and recorded.
    """

    def __init__(self, record: Record, workers: int, advance: Callable[[int], None]) -> None:
        self.totals = Totals()
        self._record, self._advance = record, advance
        self._lock, self._stop = threading.Lock(), threading.Event()
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
        done = _Countdown(len(parts), then)
        for part in parts:
            self._pending[self._pool.submit(self._write, part, write, done)] = number
            self._left[number] = self._left.get(number, 0) + 1

    def write_here(self, outputs: Sequence[Output], write: Callable[[Output], dict[str, Any]]) -> None:
        """Write on the calling thread: where a unit has few outputs, handing them over costs more than it gains."""
        self._write(outputs, write, lambda: None)

    def _write(
        self, outputs: Sequence[Output], write: Callable[[Output], dict[str, Any]], done: Callable[[], None]
    ) -> None:
        try:
            for output in outputs:
                if self._stop.is_set():
                    return
                try:
                    row = write(output)
                except OutputError:
                    raise
                except OhloraError as error:
                    self.fail(output, str(error))
                    continue
                self._record.record(output.item, row)
                with self._lock:
                    self.totals.written += 1
                    self.totals.undyed += output.ombre is not None and not row["dyed"]
                self._advance(1)
        finally:
            done()

    def fail(self, output: Output, message: str) -> None:
        """Note that an output cannot be made; the others go on."""
        self._record.record_failure(output.item, message)
        with self._lock:
            self.totals.failed[output.item] = message
        self._advance(1)

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


class _Countdown:
    """Calls `then` at the last of `count` calls, from whichever thread."""

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self._left, self._then, self._lock = count, then, threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._then()


@dataclass(frozen=True)
class CpuExecutor:
    """An executor (`run_items.Executor`) of images: `run` with this producer. batch: units under way at once."""

    producer: Producer[Any]
    batch: int = 8

    def run(
        self,
        plan: Any,
        pending: Sequence[int],
        sink: Writer,
        record: Record,
        workers: int,
        advance: Callable[[int], None],
    ) -> Totals:
        units = plan.units(pending)
        return run(units, self.producer, sink, record, batch=self.batch, workers=workers, advance=advance)


def run(
    units: Iterable[UnitT],
    producer: Producer[UnitT],
    writer: Writer,
    record: Record,
    *,
    batch: int = 8,
    workers: int = 2,
    advance: Callable[[int], None] = lambda outputs: None,
) -> Totals:
    """Run all units. An ImageError fails its item; OutputError and anything unexpected stop the run.

    On an exception (Ctrl-C included) no new work starts, work under way is finished and recorded, then it is raised.
    """
    source: Iterator[UnitT] = iter(units)
    size, at_once = producer.calls(batch)
    # Where calls are small, one more than are being made waits, so that no maker does.
    most = min(batch, max(at_once + 1, size))
    ahead: deque[tuple[list[UnitT], Future[list[Picture | ImageError | None]]]] = deque()

    with WritePool(record, workers, advance) as pool, _makers(at_once) as makers:
        totals = pool.totals

        def make(group: list[UnitT]) -> list[Picture | ImageError | None]:
            made: list[Picture | ImageError | None] = list(producer.produce(group))
            if at_once == 1:  # the only maker shall go on making
                return made
            for place, (unit, picture) in enumerate(zip(group, made, strict=True)):
                if isinstance(picture, Picture) and len(unit.outputs) <= OUTPUTS_PER_TASK:
                    pool.write_here(unit.outputs, partial(writer.write, picture))
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
                totals.units += 1
                if picture is None:  # written by its maker
                    continue
                if isinstance(picture, ImageError):
                    for output in unit.outputs:
                        pool.fail(output, str(picture))
                    continue
                pool.put(totals.units, unit.outputs, partial(writer.write, picture))
        pool.wait_until(0)
    return totals


@contextmanager
def _makers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that make pictures; what they have not begun is dropped at the end."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="ohlora-make")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
