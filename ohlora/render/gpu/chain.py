"""Latent to dyed bytes on one CUDA device: engines and kernels that hand their memory to each other.

Everything runs on one stream, copies to the host on another: while a batch of bytes travels, the next one is computed.
Nothing here waits but for memory that is still in use two batches later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.values import Ombre
from ohlora.engines.batches import BatchEngine
from ohlora.kernels.gpu.arrays import Place, device_array, on, require_kernels, simulated, uploaded
from ohlora.photos.heads import dyes_of
from ohlora.render.gpu.encode import DeviceEncoder

NO_DYE = (-1.0, 0.0, 0.0, 0.0, 0.0)


@dataclass
class Slot:
    """Where one batch of finished pictures lands: pinned memory, or for an encoder memory of the device.

    images: uint8 [M,H,W,3]; facts: int32 [B,3], of each portrait what `hair_facts` says of its map.
    Both may be read once `arrived` was waited for.
    """

    images: Any
    facts: NDArray[np.int32]
    arrived: Any


class Streams:
    """The two streams of a device. `address` of the first is what engines are opened for."""

    def __init__(self, device: int) -> None:
        require_kernels(device)
        with on(Place(device, 0)) as cuda:
            self.work, self.down = cuda.stream(), cuda.stream()
        self.device = device
        self.place = Place(device, 0 if simulated() else self.work)
        self.address = 0 if simulated() else int(self.work)


class DeviceChain:
    """Engines of one bucket of B portraits, and room for M finished pictures twice.

    synthesis: wp -> image; hair: image -> hair, None when nothing is dyed. Both are owned: `close` closes them.
    unweighted: as of `HeadMask`. encoder: of finished pictures on the device; None when the host encodes.
    """

    def __init__(
        self,
        streams: Streams,
        synthesis: BatchEngine,
        hair: BatchEngine | None,
        *,
        rows: int,
        rounding: str,
        unweighted: bool = False,
        encoder: DeviceEncoder | None = None,
    ) -> None:
        self.encoder = encoder
        self.bucket, self.rows = int(synthesis.runner.bucket), rows
        self._streams, self._place = streams, streams.place
        self._engines = [synthesis] if hair is None else [synthesis, hair]
        self._synthesis: Any = synthesis.runner
        self._hair: Any = None if hair is None else hair.runner
        self._nearest, self.unweighted = rounding == "nearest", unweighted
        self._start_turn = self._dye_turn = 0
        with on(self._place) as cuda:
            wp, image = (self._view(self._synthesis, name, synthesis) for name in ("wp", "image"))
            self._wp, self._images = wp, image
            self.side = int(image.shape[1])
            self._prepare(cuda, hair)

    def _prepare(self, cuda: Any, hair: BatchEngine | None) -> None:
        from ohlora.kernels.ombre import cuda as ombre_cuda

        size = (self.side, self.side)
        self._ombre = ombre_cuda
        self._facts = uploaded(np.tile(np.array([0, -1, 0], np.int32), (self.bucket, 1)), self._place.device)
        if hair is not None:
            self._picture, self._maps = self._view(self._hair, "image", hair), self._view(self._hair, "hair", hair)
            self._found = cuda.device_array((self.bucket, *ombre_cuda.tiles(size)), np.int32)
            self._taps = ombre_cuda.hair_taps(self._maps.shape, size, self._place)
        # Twice, used in turn.
        self._latents = [cuda.pinned_array(self._wp.shape, np.float32) for _ in range(2)]
        self._uploaded = [cuda.event() for _ in range(2)]
        self._tables = [cuda.pinned_array((self.rows, 6), np.float64) for _ in range(2)]
        self._dyes = [cuda.device_array((self.rows, 6), np.float64) for _ in range(2)]
        turns = 2 if self.encoder is None else 0  # else slots are on the device themselves
        self._dyed = [cuda.device_array((self.rows, *size, 3), np.uint8) for _ in range(turns)]
        self._ready = [cuda.event() for _ in range(2)]
        self._copied = [cuda.event() for _ in range(2)]

    @staticmethod
    def _view(runner: Any, name: str, engine: BatchEngine) -> Any:
        tensor = next(t for t in (*engine.spec.inputs, *engine.spec.outputs) if t.name == name)
        return device_array(name, runner.buffer(name), tensor.dtype, (runner.bucket, *tensor.row_shape))

    def new_slot(self) -> Slot:
        with on(self._place) as cuda:
            make = cuda.pinned_array if self.encoder is None else cuda.device_array
            return Slot(
                make((self.rows, self.side, self.side, 3), np.uint8),
                cuda.pinned_array((self.bucket, 3), np.int32),
                cuda.event(),
            )

    @property
    def map_pixels(self) -> int:
        """Of one hair map; 0 when hair is not looked for."""
        return 0 if self._hair is None else int(self._maps.shape[1] * self._maps.shape[2])

    def start(self, wp: NDArray[np.float32]) -> None:
        """Make portraits and their hair maps of wp [N,L,W], N <= B. They stay until the next start."""
        from ohlora.kernels.gpu import images as pictures_cuda

        with on(self._place):
            turn = self._start_turn = 1 - self._start_turn
            self._uploaded[turn].synchronize()
            pinned = self._latents[turn]
            pinned[: len(wp)] = wp
            pinned[len(wp) :] = wp[-1]  # a full bucket, so that no row meets other kernels in a smaller one
            self._wp.copy_to_device(pinned, stream=self._streams.work)
            self._uploaded[turn].record(self._streams.work)
            self._synthesis.launch(self._streams.address)
            if self._hair is not None:
                pictures_cuda.fit_pictures(self._images, self._picture, self._place)
                self._hair.launch(self._streams.address)
                self._ombre.find_rows(self._maps, (self.side, self.side), self._found, self._place)
                pictures_cuda.hair_facts(self._maps, self._found, self._facts, self._place)

    def dye(self, slot: Slot, asked: Sequence[tuple[int, Ombre | None]]) -> None:
        """Put dyed pictures into `slot`, for each of `asked` (number of the portrait in the bucket, dye), at most M."""
        work, down = self._streams.work, self._streams.down
        count = len(asked)
        with on(self._place):
            turn = self._dye_turn = 1 - self._dye_turn
            # Two batches ago: the buffers of this turn are free, on the host and on the device.
            self._copied[turn].synchronize()
            target = (self._dyed[turn] if self.encoder is None else slot.images)[:count]
            if self._hair is None:
                for row, first, length in runs([number for number, _ in asked]):
                    target[row : row + length].copy_to_device(self._images[first : first + length], stream=work)
            else:
                self._tables[turn][:count] = [(*dye_row(ombre), number) for number, ombre in asked]
                table = self._dyes[turn][:count]
                table.copy_to_device(self._tables[turn][:count], stream=work)
                source = (self._maps, *self._taps)
                self._ombre.dye_rows(
                    self._images, source, self._found, table, target, self._place, self._nearest, self.unweighted
                )
            self._facts.copy_to_host(slot.facts, stream=work)
            if self.encoder is not None:
                self._copied[turn].record(work)
                slot.arrived.record(work)
                return
            self._ready[turn].record(work)
            self._ready[turn].wait(down)
            target.copy_to_host(slot.images[:count], stream=down)
            self._copied[turn].record(down)
            slot.arrived.record(down)

    def close(self) -> None:
        """Wait for what is under way, then free engines and memory."""
        with on(self._place):
            self._streams.work.synchronize()
            self._streams.down.synchronize()
        for engine in self._engines:
            engine.close()
        self._dyed, self._dyes, self._tables, self._latents = [], [], [], []


def runs(numbers: Sequence[int]) -> list[tuple[int, int, int]]:
    """Consecutive numbers taken together: (place, first number, length) of each run; a job without dyes is one run."""
    found: list[tuple[int, int, int]] = []
    for place, number in enumerate(numbers):
        if found and number == found[-1][1] + found[-1][2]:
            start, first, length = found[-1]
            found[-1] = (start, first, length + 1)
        else:
            found.append((place, number, 1))
    return found


def dye_row(ombre: Ombre | None) -> tuple[float, float, float, float, float]:
    """red, green, blue, height, grad_height of a dye as the kernels read them."""
    if ombre is None:
        return NO_DYE
    red, green, blue = (float(level) for level in dyes_of(ombre).colors[0])
    return red, green, blue, ombre.height, ombre.grad_height
