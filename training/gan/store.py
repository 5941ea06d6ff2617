"""Training pictures on disk: made once, in chunks, then read through a memory map.

    FOLDER/manifest.json        what the pictures are
    FOLDER/chunk-00000.npy ...  uint8 [CHUNK, R, R, 3] each, the last one shorter

A chunk file is there complete or not at all, so a killed run goes on with the next chunk, and more pictures are only
more chunks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import atomic_path, make_folder, remove_leftovers, write_bytes
from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError

CHUNK = 512

Maker = Callable[[int, int], Rgb]  # (first, last + 1) -> the pictures of these indices


class ImageStore:
    """`count` square pictures of `resolution` pixels; picture i is `make(i, i + 1)`, kept in `folder`.

    identity: JSON-able description of what `make` draws. A folder with the same pictures at a multiple of `resolution`
    is used as it is, `self.resolution` then says the finer size. Raises InvalidInputError for a folder of other
    pictures.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], count: int, resolution: int, chunk: int = CHUNK) -> None:
        self.folder, self.count, self.resolution, self.chunk = make_folder(folder), count, resolution, chunk
        self._levels: dict[int, Rgb] = {}
        self._maps: list[Rgb] = []
        wanted = json.loads(json.dumps({**identity, "resolution": resolution, "chunk": chunk}))
        manifest = folder / "manifest.json"
        if manifest.is_file():
            try:
                found = dict(json.loads(manifest.read_text()))
            except ValueError as error:
                raise InvalidInputError(
                    f"{manifest} is damaged: delete the folder {folder}, it is made anew"
                ) from error
            stored = found.get("resolution")
            if isinstance(stored, int) and stored > resolution and stored % resolution == 0:
                self.resolution = wanted["resolution"] = stored  # finer pictures serve as well
            if found != wanted:
                keys = sorted(set(found) | set(wanted))
                key = next(k for k in keys if found.get(k) != wanted.get(k))
                raise InvalidInputError(
                    f"{folder} holds other training pictures ({key}: {found.get(key)!r}, now {wanted.get(key)!r}): "
                    "delete that folder or choose another one"
                )
        else:
            write_bytes(manifest, (json.dumps(wanted, indent=1) + "\n").encode())

    def _path(self, index: int) -> Path:
        return self.folder / f"chunk-{index:05d}.npy"

    def _length(self, index: int) -> int:
        return min(self.chunk, self.count - index * self.chunk)

    @property
    def chunks(self) -> int:
        return -(-self.count // self.chunk)

    def fill(self, make: Maker, report: Callable[[int, int], None] = lambda done, count: None) -> int:
        """Make what is missing. `report(done, count)` follows every chunk. Returns how many pictures were made."""
        remove_leftovers(self.folder)
        made = 0
        for index in range(self.chunks):
            first, length = index * self.chunk, self._length(index)
            if self._have(index) < length:
                images = np.ascontiguousarray(make(first, first + length), dtype=np.uint8)
                if images.shape != (length, self.resolution, self.resolution, 3):
                    raise InvalidInputError(f"pictures {first} .. {first + length - 1} came as {images.shape}")
                with atomic_path(self._path(index)) as temporary:
                    np.save(temporary, images)
                made += length
                report(first + length, self.count)
        self._maps, self._levels = [np.load(self._path(i), mmap_mode="r") for i in range(self.chunks)], {}
        return made

    def _have(self, index: int) -> int:
        """Pictures in a chunk file; 0 when there is none or it is no chunk of this store."""
        path = self._path(index)
        if not path.is_file():
            return 0
        try:
            array = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):  # cut short by something other than this class
            return 0
        good = array.dtype == np.uint8 and array.shape[1:] == (self.resolution, self.resolution, 3)
        return len(array) if good else 0

    def gather(self, indices: NDArray[np.int64], resolution: int | None = None) -> Rgb:
        """Pictures [len(indices), r, r, 3]; a smaller `resolution` (the full one over 2, 4, ...) is an area mean."""
        size = self.resolution if resolution is None else resolution
        if size < 1 or size > self.resolution or self.resolution % size:
            raise InvalidInputError(f"the stored pictures have {self.resolution} pixels: cannot give {size}")
        if not self._maps:
            raise InvalidInputError(f"{self.folder} has not been filled yet")
        if size < self.resolution:
            return self._level(size)[indices]
        return np.stack([self._maps[i // self.chunk][i % self.chunk] for i in indices])

    def _level(self, size: int) -> Rgb:
        """All pictures at a smaller size, kept in memory: at most a quarter of the store, read thousands of times."""
        if size not in self._levels:
            level = np.empty((self.count, size, size, 3), np.uint8)
            for index, chunk in enumerate(self._maps):
                for start in range(0, self._length(index), 64):
                    part = chunk[start : min(start + 64, self._length(index))]
                    begin = index * self.chunk + start
                    level[begin : begin + len(part)] = area_mean(part, size)
            self._levels = {size: level}  # phases only grow: the last level is not needed again
        return self._levels[size]


def area_mean(images: Rgb, size: int) -> Rgb:
    """uint8 [N,R,R,3] -> [N,size,size,3], R a multiple of size; rounds half up."""
    factor = images.shape[1] // size
    blocks = images.reshape(len(images), size, factor, size, factor, 3)
    total = blocks.sum((2, 4), dtype=np.uint32)
    return ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)
