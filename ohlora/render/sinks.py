"""Where finished pictures go: dye, encode, write atomically, describe."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import make_folder, remove_leftovers, write_bytes
from ohlora.base.values import Ombre
from ohlora.io.images import encode_image
from ohlora.kernels.choices import Backend, Rounding
from ohlora.photos.heads import dye_heads, dye_image
from ohlora.render.job import OutputFormat
from ohlora.render.pipeline import Picture
from ohlora.render.plan import Output

FIRST_DYES = 32  # 0.1 s for pictures of 256x256 in NumPy; Numba takes 0.3 s and more to load


def dye(
    picture: Picture, ombre: Ombre | None, rounding: Rounding = "truncate", backend: Backend = "auto"
) -> NDArray[np.uint8]:
    """The picture with its hair dyed; uint8 RGB [H,W,3]. Unchanged when no hair was found or no dye is asked."""
    if ombre is not None and picture.heads:
        return dye_heads(picture.image, picture.heads, ombre, rounding, backend)
    if ombre is None or picture.mask is None:
        return picture.image
    return dye_image(picture.image, picture.mask, ombre, rounding, backend)


def job_backends() -> Iterator[Backend]:
    """For the dyes of one job in turn: a few by the size of each, since small ones need not wait for Numba; then Numba.

    Several threads may take from it.
    """
    first: Backend = "auto"
    then: Backend = "cpu"
    return chain(repeat(first, FIRST_DYES), repeat(then))


def has_hair(picture: Picture) -> bool:
    """Whether there is a row of hair strong enough to be dyed (docs/spec/ombre.md, section 4)."""
    if picture.heads:
        return any(head.has_hair for head in picture.heads)
    return picture.mask is not None and int(picture.mask.bottom[0]) >= 0


@dataclass
class FolderSink:
    """Image files in one folder. provenance: what every metadata row repeats (bundle, engines)."""

    folder: Path
    output: OutputFormat
    provenance: dict[str, Any] = field(default_factory=dict)
    _made: set[Path] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _backends: Iterator[Backend] = field(default_factory=job_backends)

    def _ready(self, folder: Path) -> None:
        """Make a subfolder once, and sweep out what a killed run left half-written in it."""
        with self._lock:
            if folder not in self._made:
                remove_leftovers(make_folder(folder))
                self._made.add(folder)

    def write(self, picture: Picture, output: Output) -> dict[str, Any]:
        """Raises ImageError when the picture cannot be stored in this format, OutputError when the disk refuses."""
        image = dye(picture, output.ombre, self.output.rounding, next(self._backends))
        return self.store(image, output, picture.facts, output.ombre is not None and has_hair(picture))

    def store(self, image: NDArray[np.uint8], output: Output, facts: dict[str, Any], dyed: bool) -> dict[str, Any]:
        """A finished picture, uint8 RGB [H,W,3] -> file and metadata row. Errors as `write`."""
        data = encode_image(image, self.output.format, self.output.quality)
        return self.store_bytes(data, (image.shape[0], image.shape[1]), output, facts, dyed)

    def store_bytes(
        self, data: bytes, size: tuple[int, int], output: Output, facts: dict[str, Any], dyed: bool
    ) -> dict[str, Any]:
        """As `store`, for a picture of `size` (height, width) that is encoded already."""
        path = self.folder / output.file_name
        self._ready(path.parent)
        write_bytes(path, data)
        return {
            "file_name": output.file_name,
            **output.facts,
            **facts,
            "dyed": dyed,
            "width": size[1],
            "height": size[0],
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            **self.provenance,
        }
