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

from ohlora.base.atomic import atomic_path, make_folder, remove_leftovers, write_json
from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError

CHUNK = 512

Maker = Callable[[int, int], Rgb]  # (first, last + 1) -> the pictures of these indices


class ImageStore:
    """`count` square pictures of `resolution` pixels; picture i is `make(i, i + 1)`, kept in `folder`.

    identity: JSON-able description of what `make` draws. A folder with the same pictures at a multiple of `resolution`
    is used as it is, `self.resolution` then says the finer size. renew: other pictures in the folder are deleted; else
    InvalidInputError is raised for them.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict[str, Any],
        count: int,
        resolution: int,
        chunk: int = CHUNK,
        *,
        renew: bool = False,
    ) -> None:
        self.folder, self.count, self.resolution, self.chunk = make_folder(folder), count, resolution, chunk
        self._levels: dict[int, Rgb] = {}
        self._maps: list[Rgb] = []
        expected = json.loads(json.dumps({**identity, "resolution": resolution, "chunk": chunk}))
        manifest = folder / "manifest.json"
        if renew and not _holds(manifest, expected):
            manifest.unlink(missing_ok=True)
            for path in folder.glob("chunk-*.npy"):
                path.unlink()
        if not manifest.is_file():
            write_json(manifest, expected)
            return
        try:
            stored = dict(json.loads(manifest.read_text()))
        except ValueError as error:
            raise InvalidInputError(f"{manifest} is damaged: delete the folder {folder}, it is made anew") from error
        finer = stored.get("resolution")
        if isinstance(finer, int) and finer > resolution and finer % resolution == 0:
            self.resolution = expected["resolution"] = finer  # finer pictures serve as well
        for key in sorted(stored.keys() | expected.keys()):
            if key == "content" and key not in stored:
                continue  # an older version did not keep it; the run's own record decides
            if stored.get(key) != expected.get(key):
                raise InvalidInputError(
                    f"{folder} holds other training pictures ({key}: {stored.get(key)!r}, now {expected.get(key)!r}): "
                    "delete that folder or choose another one"
                )

    def fill(self, make: Maker, report: Callable[[int, int], None] = lambda done, count: None) -> int:
        """Make what is missing. `report(done, count)` follows every chunk. Returns how many pictures were made."""
        remove_leftovers(self.folder)
        made = 0
        for first in range(0, self.count, self.chunk):
            path, end = self._path(first), min(first + self.chunk, self.count)
            if not self._have(path, end - first):
                images = np.ascontiguousarray(make(first, end), dtype=np.uint8)
                if images.shape != (end - first, self.resolution, self.resolution, 3):
                    raise InvalidInputError(f"pictures {first} .. {end - 1} came as {images.shape}")
                with atomic_path(path) as temporary:
                    np.save(temporary, images)
                made += len(images)
                report(end, self.count)
        self._maps = [np.load(self._path(first), mmap_mode="r") for first in range(0, self.count, self.chunk)]
        self._levels = {}
        return made

    def _path(self, first: int) -> Path:
        return self.folder / f"chunk-{first // self.chunk:05d}.npy"

    def _have(self, path: Path, length: int) -> bool:
        """Whether a chunk file holds so many pictures of this store."""
        try:
            array = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):  # not there, or cut short by something other than this class
            return False
        shape = (self.resolution, self.resolution, 3)
        return array.dtype == np.uint8 and array.shape[1:] == shape and len(array) >= length

    def gather(self, indices: NDArray[np.int64], resolution: int | None = None) -> Rgb:
        """Pictures [len(indices), r, r, 3]; a smaller `resolution` (the full one over 2, 4, ...) is an area mean."""
        size = self.resolution if resolution is None else resolution
        if size < 1 or size > self.resolution or self.resolution % size:
            raise InvalidInputError(f"the stored pictures have {self.resolution} pixels: cannot give {size}")
        if not self._maps:
            raise InvalidInputError(f"{self.folder} has not been filled yet")
        if size == self.resolution:
            return np.stack([self._maps[i // self.chunk][i % self.chunk] for i in indices])
        if size not in self._levels:  # at most a quarter of the store, read thousands of times: kept in memory
            level = np.empty((self.count, size, size, 3), np.uint8)
            for start in range(0, self.count, 64):
                part = np.arange(start, min(start + 64, self.count))
                level[part] = area_mean(self.gather(part), size)
            self._levels = {size: level}  # phases only grow: the last level is not needed again
        return self._levels[size][indices]


def _holds(manifest: Path, expected: dict[str, Any]) -> bool:
    """Whether a store's manifest says exactly this, but for its resolution."""
    try:
        stored = dict(json.loads(manifest.read_text()))
    except (OSError, ValueError, TypeError):
        return False
    return {**stored, "resolution": 0} == {**expected, "resolution": 0} and stored["resolution"] % expected[
        "resolution"
    ] == 0


def area_mean(images: Rgb, size: int) -> Rgb:
    """uint8 [N,R,R,3] -> [N,size,size,3], R a multiple of size; rounds half up."""
    factor = images.shape[1] // size
    blocks = images.reshape(len(images), size, factor, size, factor, 3)
    total = blocks.sum((2, 4), dtype=np.uint32)
    return np.asarray((total + factor * factor // 2) // (factor * factor), np.uint8)
