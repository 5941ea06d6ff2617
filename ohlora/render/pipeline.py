"""Do the plan: portraits are made a few at a time while the finished ones are dyed, encoded and written.

At most `batch` units are between "started" and "written": that bounds memory, and it is all that a killed job
does again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import ImageError, OhloraError, OutputError
from ohlora.kernels.ombre import HairMask
from ohlora.photographs import HeadMask
from ohlora.render.plan import Output, PhotoUnit, PortraitUnit

# Outputs of one unit are written in tasks of this many: enough to keep all workers busy on one face's sweep,
# few enough that a task is not all overhead.
OUTPUTS_PER_TASK = 8

UnitT = TypeVar("UnitT", PortraitUnit, PhotoUnit, contravariant=True)


@dataclass(frozen=True, slots=True)
class Picture:
    """What a unit's outputs are dyed from. image uint8 RGB [H,W,3]; mask of one picture, None when no dye is asked.

    heads: the hair of several people, each dyed by itself; then there is no mask.
    """

    image: NDArray[np.uint8]
    mask: HairMask | None
    facts: dict[str, Any]
    heads: tuple[HeadMask, ...] = ()


class Producer(Protocol[UnitT]):
    """Makes the pictures of some units. An error in place of a picture fails that unit only."""

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
    totals, lock, stop = Totals(), threading.Lock(), threading.Event()
    pending: dict[Future[None], int] = {}  # task -> unit number
    left: dict[int, int] = {}  # unit number -> its unfinished tasks
    chunk = max(1, batch // 2)

    def write_outputs(picture: Picture, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if stop.is_set():
                return
            try:
                row = writer.write(picture, output)
            except OutputError:
                raise
            except OhloraError as error:
                fail(output, str(error))
                continue
            record.record(output.item, row)
            with lock:
                totals.written += 1
                totals.undyed += output.ombre is not None and not row["dyed"]
            advance(1)

    def fail(output: Output, message: str) -> None:
        record.record_failure(output.item, message)
        with lock:
            totals.failed[output.item] = message
        advance(1)

    def collect(room_for: int) -> None:
        """Wait until at most `batch - room_for` units are unwritten."""
        while pending and len(left) > batch - room_for:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for task in done:
                number = pending.pop(task)
                left[number] -= 1
                if not left[number]:
                    del left[number]
                task.result()

    source: Iterator[UnitT] = iter(units)
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="ohlora-write") as pool:
        try:
            while group := list(islice(source, chunk)):
                collect(room_for=len(group))
                for unit, picture in zip(group, producer.produce(group), strict=True):
                    totals.units += 1
                    if isinstance(picture, ImageError):
                        for output in unit.outputs:
                            fail(output, str(picture))
                        continue
                    number = totals.units
                    for start in range(0, len(unit.outputs), OUTPUTS_PER_TASK):
                        part = unit.outputs[start : start + OUTPUTS_PER_TASK]
                        pending[pool.submit(write_outputs, picture, part)] = number
                        left[number] = left.get(number, 0) + 1
            collect(room_for=batch)
        except BaseException:
            stop.set()
            for task in pending:
                task.cancel()
            raise
    return totals
