"""Where finished outputs go: dye, encode, write atomically, describe."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from ohlora.base.atomic import make_folder, remove_leftovers, write_bytes
from ohlora.base.types import Rgb
from ohlora.base.values import Ombre
from ohlora.io.images import encode_image
from ohlora.io.marking import RENDERED, Mark, mark_image
from ohlora.kernels.choices import Backend, Rounding
from ohlora.photos.heads import HeadMask, dye_heads
from ohlora.render.job import OutputFormat
from ohlora.render.plan import Output

FIRST_DYES = 32  # 0.1 s for pictures of 256x256 in NumPy; Numba takes 0.3 s and more to load


@dataclass(frozen=True, slots=True)
class Picture:
    """What a unit's outputs are dyed from. image: uint8 RGB [H,W,3]. heads: the hair of each person in it, none when
    no dye is asked. profiled: its file said which colors it has, so the results do.
    """

    image: Rgb
    facts: dict[str, Any]
    heads: tuple[HeadMask, ...] = ()
    profiled: bool = False


def dye(picture: Picture, ombre: Ombre | None, rounding: Rounding = "truncate", backend: Backend = "auto") -> Rgb:
    """The picture with its hair dyed; uint8 RGB [H,W,3]. Unchanged when no hair was found or no dye is asked."""
    if ombre is None or not picture.heads:
        return picture.image
    return dye_heads(picture.image, picture.heads, ombre, rounding, backend)


def job_backends() -> Iterator[Backend]:
    """For the dyes of one job in turn: a few by the size of each, since small ones need not wait for Numba; then Numba.

    Several threads may take from it.
    """
    first: Backend = "auto"
    then: Backend = "cpu"
    return chain(repeat(first, FIRST_DYES), repeat(then))


@dataclass
class FolderSink:
    """The files of one folder. output: how images are encoded. provenance: what every metadata row repeats (bundle,
    engines). mark: what the files are, which they say unless `output` leaves it out.
    """

    folder: Path
    output: OutputFormat = field(default_factory=OutputFormat)
    provenance: dict[str, Any] = field(default_factory=dict)
    mark: Mark = RENDERED
    _made: set[Path] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _backends: Iterator[Backend] = field(default_factory=job_backends)

    def path(self, output: Output) -> Path:
        """Where an output belongs. Makes its subfolder once, and sweeps out what a killed run left half-written."""
        path = self.folder / output.file_name
        with self._lock:
            if path.parent not in self._made:
                remove_leftovers(make_folder(path.parent))
                self._made.add(path.parent)
        return path

    def mark_of(self, changed: bool) -> Mark | None:
        """Of a file. changed: not its source's content as it was; a photograph that was not dyed has no mark."""
        return self.mark if self.output.mark and (changed or self.mark == RENDERED) else None

    def row(self, output: Output, facts: dict[str, Any], size: int, sha256: str) -> dict[str, Any]:
        """The metadata of a file that is in place."""
        described = {"file_name": output.file_name, **output.facts, **facts}
        return {**described, "bytes": size, "sha256": sha256, **self.provenance}

    def write(self, picture: Picture, output: Output) -> dict[str, Any]:
        """Raises ImageError when the picture cannot be stored in this format, OutputError when the disk refuses."""
        image = dye(picture, output.ombre, self.output.rounding, next(self._backends))
        dyed = output.ombre is not None and any(head.has_hair for head in picture.heads)
        return self.store(image, output, picture.facts, dyed, srgb=picture.profiled)

    def store(
        self,
        image: Rgb,
        output: Output,
        facts: dict[str, Any],
        dyed: bool,
        data: bytes | None = None,
        *,
        srgb: bool = False,
    ) -> dict[str, Any]:
        """A finished picture, uint8 RGB [H,W,3] -> file and metadata row. Errors as `write`.

        data: its file, where it is encoded already; then only the size of `image` counts. srgb: the file says that its
        colors are sRGB.
        """
        mark = self.mark_of(dyed)
        if data is None:
            data = encode_image(image, self.output.format, self.output.quality, mark=mark, srgb=srgb)
        elif mark is not None:
            data = mark_image(data, mark)
        write_bytes(self.path(output), data)
        facts = {**facts, "dyed": dyed, "width": int(image.shape[1]), "height": int(image.shape[0])}
        return self.row(output, facts, len(data), hashlib.sha256(data).hexdigest())
