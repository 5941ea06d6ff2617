"""Portraits on a CUDA device, batch by batch, while the finished ones are encoded and written by CPU workers.

A ring of pinned slots bounds memory: a batch is computed when a slot is free, and a slot is free again when all its
pictures are written. Where the device has no room, the bucket is halved and the job goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.engines.gpu.device_memory import is_out_of_memory
from ohlora.errors import EngineError
from ohlora.render.gpu.chain import DeviceChain, Slot
from ohlora.render.job import RenderJob
from ohlora.render.pipeline import Results, WritePool
from ohlora.render.plan import Output, PortraitPlan, PortraitUnit
from ohlora.render.sinks import FolderSink, Picture, dye
from ohlora.render.sources import JobLatents

SLOTS = 4  # two batches under way on the device, two being written
UNDER_WAY = 2
_LOG = logging.getLogger("ohlora")


@dataclass(frozen=True)
class Finished:
    """Pictures that have arrived. images: uint8 [M,H,W,3], valid until `release`; one output and its facts for each.

    files: makes the pictures' encoded bytes, where the device encodes; then `images` is on the device.
    pictures: for each output what the host dyes it from, where the device does not; then `images` are undyed.
    """

    images: Any
    outputs: list[Output]
    facts: list[dict[str, Any]]
    dyed: list[bool]
    release: Callable[[], None]
    files: Callable[[], list[bytes]] | None = None
    pictures: list[Callable[[], Picture]] | None = None


# A batch under way, and for each of its outputs the number of the portrait in its bucket.
_UnderWay = tuple[Slot, list[int], list[Output]]


@dataclass
class DevicePipeline:
    """Units -> finished pictures. open_chain: makes a chain for buckets of a size; called again with half of it when
    the device has no room. finish: finds the hair of portraits that the host dyes; None: the device dyes them.
    """

    latents: JobLatents
    open_chain: Callable[[int], DeviceChain]
    bucket: int
    finish: Callable[[Sequence[Rgb]], list[Picture]] | None = None
    runs: int = 0  # portraits made so far
    _chain: DeviceChain | None = field(default=None, init=False)
    _free: queue.Queue[Slot] = field(default_factory=queue.Queue, init=False)
    _waiting: deque[_UnderWay] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self._open()

    def _open(self) -> None:
        while True:
            try:
                self._chain = chain = self.open_chain(self.bucket)
                slots = [chain.new_slot() for _ in range(SLOTS)]
            except Exception as error:
                self._halve(error)
                continue
            self._free = queue.Queue()
            for slot in slots:
                self._free.put(slot)
            return

    def _halve(self, error: Exception) -> None:
        """Raises `error` unless it is that the device has no room, and half would still be something."""
        if not is_out_of_memory(error):
            raise error
        self.close()
        if self.bucket == 1:
            reason = " ".join(str(error).split())[:300]
            raise EngineError(f"the device has no room for a single portrait: {reason}") from error
        _LOG.warning("the device has no room for batches of %d: going on with %d", self.bucket, self.bucket // 2)
        self.bucket //= 2

    @property
    def _opened(self) -> DeviceChain:
        if self._chain is None:
            raise EngineError("this device pipeline is closed: make another one")
        return self._chain

    def finished(self, units: Iterable[PortraitUnit]) -> Iterator[Finished]:
        """All outputs of `units`, in order. Each must be released; at most SLOTS - UNDER_WAY may be held at once."""
        source = iter(units)
        try:
            while group := list(islice(source, self.bucket)):
                while group:
                    yield from self._start(self.latents.wp(group))
                    made, group = group[: self.bucket], group[self.bucket :]
                    self.runs += len(made)
                    yield from self._dyed(made)
            yield from self._drained()
        finally:  # of a run that is not finished: nobody else has these slots
            for slot, *_ in self._waiting:
                slot.arrived.synchronize()
                self._free.put(slot)
            self._waiting.clear()

    def _start(self, wp: NDArray[np.float32]) -> Iterator[Finished]:
        """Start as many of wp's portraits as a bucket holds, in smaller ones where the device has no room."""
        while True:
            try:
                self._opened.start(wp[: self.bucket])
                return
            except Exception as error:
                if is_out_of_memory(error):
                    yield from self._drained()
                self._halve(error)
                self._open()

    def _dyed(self, group: Sequence[PortraitUnit]) -> Iterator[Finished]:
        """Every output of the portraits that are on the device now, as many at a time as a slot holds."""
        chain = self._opened
        pairs = ((number, output) for number, unit in enumerate(group) for output in unit.outputs)
        while part := list(islice(pairs, chain.rows)):
            while self._free.empty() and self._waiting:
                yield self._arrived()
            slot = self._free.get()
            on_host = self.finish is not None
            chain.dye(slot, [(number, None if on_host else output.ombre) for number, output in part])
            self._waiting.append((slot, [number for number, _ in part], [output for _, output in part]))
            while len(self._waiting) >= UNDER_WAY:
                yield self._arrived()

    def _drained(self) -> Iterator[Finished]:
        while self._waiting:
            yield self._arrived()

    def _arrived(self) -> Finished:
        slot, numbers, outputs = self._waiting.popleft()
        free, encoder = self._free, self._opened.encoder
        slot.arrived.synchronize()
        pixels = self._opened.map_pixels
        facts, dyed = [], []
        for number, output in zip(numbers, outputs, strict=True):
            hairs, bottom, strong = (int(value) for value in slot.facts[number])
            has_hair = bottom >= 0 or (self._opened.unweighted and strong > 0)
            facts.append({"hair_share": round(hairs / pixels, 4)} if pixels else {})
            dyed.append(output.ombre is not None and has_hair)
        images = slot.images[: len(outputs)]
        files = None if encoder is None else cache(lambda: encoder([images[row] for row in range(len(outputs))]))
        pictures = None if self.finish is None else _by_portrait(self.finish, images, numbers)
        return Finished(images, outputs, facts, dyed, lambda: free.put(slot), files, pictures)

    def close(self) -> None:
        """Free the device. What was not finished is lost."""
        self._waiting.clear()
        if self._chain is not None:
            self._chain.close()
            self._chain = None


def _by_portrait(
    finish: Callable[[Sequence[Rgb]], list[Picture]], images: Any, numbers: Sequence[int]
) -> list[Callable[[], Picture]]:
    """For each image its portrait's picture, made by whoever asks first: the images of a number are the same."""

    def made_once(image: Rgb) -> Callable[[], Picture]:
        lock = threading.Lock()
        made = cache(lambda: finish([image])[0])

        def picture() -> Picture:
            with lock:
                return made()

        return picture

    makers = {number: made_once(image) for number, image in zip(numbers, images, strict=True)}
    return [makers[number] for number in numbers]


class DeviceStreams:
    """A job's items as arrays, for `Renderer.stream`; pipelines are kept between jobs. A job that dyes needs other
    engines than one that does not, so there are two at most for each rounding.

    make_pipeline, make_latents: of a job.
    """

    def __init__(
        self, make_pipeline: Callable[[RenderJob], DevicePipeline], make_latents: Callable[[RenderJob], JobLatents]
    ) -> None:
        self._make_pipeline, self._make_latents = make_pipeline, make_latents
        self._pipelines: dict[tuple[bool, str], DevicePipeline] = {}

    def stream(self, job: RenderJob) -> Iterator[tuple[int, Rgb, dict[str, Any]]]:
        """Number, image uint8 RGB [H,W,3] and facts of each, in order; memory does not grow with the job."""
        key = (any(look.ombre is not None for look in job.looks), job.output.rounding)
        pipeline = self._pipelines.get(key)
        if pipeline is None:
            pipeline = self._pipelines[key] = self._make_pipeline(job)
        else:
            pipeline.latents = self._make_latents(job)
        # Outputs come by expression, whose items may alternate: those that are early wait here.
        made: dict[int, tuple[int, Rgb, dict[str, Any]]] = {}
        following = 0
        for batch in pipeline.finished(PortraitPlan(job).units(range(len(job)))):
            for row, output in enumerate(batch.outputs):
                image, facts = batch.images[row], batch.facts[row]
                if batch.pictures is not None:
                    picture = batch.pictures[row]()
                    image, facts = dye(picture, output.ombre, job.output.rounding), picture.facts
                made[output.item] = (output.item, image.copy(), {**output.facts, **facts})
            batch.release()
            while following in made:
                yield made.pop(following)
                following += 1

    def close(self) -> None:
        for pipeline in self._pipelines.values():
            pipeline.close()
        self._pipelines.clear()


def run_on_device(
    units: Iterable[PortraitUnit],
    pipeline: DevicePipeline,
    sink: FolderSink,
    results: Results,
    *,
    workers: int,
) -> None:
    """Run all units; errors as in `pipeline.run`. `workers` threads encode, unless the device does, and store."""
    with WritePool(results, workers) as pool:
        for number, batch in enumerate(pipeline.finished(units)):
            pool.put(number, batch.outputs, _storing(batch, sink), batch.release)
            pool.wait_until(SLOTS)  # takes note of what is done, and raises what stopped a worker
        pool.wait_until(0)
    results.units = pipeline.runs


def _storing(batch: Finished, sink: FolderSink) -> Callable[[Output], dict[str, Any]]:
    """Stores the outputs of one batch; called by several threads."""
    lock, row_of = threading.Lock(), {output.item: row for row, output in enumerate(batch.outputs)}

    def store(output: Output) -> dict[str, Any]:
        row, data = row_of[output.item], None
        if batch.pictures is not None:
            return sink.write(batch.pictures[row](), output)
        if batch.files is not None:
            with lock:  # whoever comes first has the device encode all of them
                data = batch.files()[row]
        return sink.store(batch.images[row], output, batch.facts[row], batch.dyed[row], data)

    return store
