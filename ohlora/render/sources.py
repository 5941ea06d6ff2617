"""Make the pictures that outputs are dyed from: portraits from a generator, photographs from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.bundle.manifest import Framing, GeneratorPart
from ohlora.engines import Engine, usable_cores
from ohlora.errors import ImageError
from ohlora.io.images import read_photo
from ohlora.latents.mapping import LatentSource
from ohlora.photos.heads import PhotoReader, as_weighted
from ohlora.photos.portraits import is_documented, portrait_hair
from ohlora.render.job import RenderJob
from ohlora.render.plan import PortraitUnit, SourceUnit
from ohlora.render.sinks import Picture


def truncate(
    w: NDArray[np.float32], mean: NDArray[np.float32], num_layers: int, psi: float, layers: int
) -> NDArray[np.float32]:
    """w [N,512] -> wp [N,num_layers,512]; the first `layers` layers pulled towards the mean
    (docs/spec/stylegan.md, section 2.4).
    """
    wp = np.repeat(w[:, None], num_layers, axis=1)
    if psi < 1.0 and layers > 0:
        wp[:, :layers] = mean + (wp[:, :layers] - mean) * np.float32(psi)
    return wp


def dyed_as_documented(part: GeneratorPart) -> bool:
    """Whether hair maps of this generator's portraits are only enlarged; a device dyes those alone."""
    return is_documented(part.resolution, part.framing)


def pictures_with_hair(
    images: Sequence[Rgb], engine: Engine | None, framing: Framing | None = None, *, unweighted: bool = False
) -> list[Picture]:
    """Portraits and the hair of each; without an engine there is no dye and none is looked for.

    framing: of the portraits (`portrait_hair`). unweighted: as of `HeadMask`.
    """
    if engine is None:
        return [Picture(image, {}) for image in images]
    found = portrait_hair(engine, images, framing)
    return [
        Picture(image, hair.facts, as_weighted(hair.heads, unweighted))
        for image, hair in zip(images, found, strict=True)
    ]


@dataclass
class JobLatents:
    """z -> w (once per face) -> expression -> what the synthesis network of `num_layers` layers takes.

    truncation: psi, and the layers it acts on.
    """

    job: RenderJob
    source: LatentSource
    w_mean: NDArray[np.float32]
    num_layers: int
    truncation: tuple[float, int]

    def wp(self, units: Sequence[PortraitUnit]) -> NDArray[np.float32]:
        """float32 [N,L,W] of N units."""
        rows = self.source.rows([(unit.face, self.job.faces[unit.face], unit.expression) for unit in units])
        return truncate(rows, self.w_mean, self.num_layers, *self.truncation)


@dataclass
class PortraitProducer:
    """Latents -> image, hair. hair_engine None when the job dyes nothing. framing: of the portraits. unweighted: as of
    `HeadMask`.
    """

    latents: JobLatents
    synthesis: Engine
    hair_engine: Engine | None
    framing: Framing | None = None
    unweighted: bool = False
    runs: int = 0  # generator runs so far

    def calls(self, batch: int) -> tuple[int, int]:
        """One call at a time: threads at the same layer share its weights in the caches, threads apart do not
        (measured: a tenth slower, see docs/performance.md).
        """
        return max(1, batch // 2), 1

    def produce(self, units: Sequence[PortraitUnit]) -> list[Picture | ImageError]:
        images = self.synthesis(wp=self.latents.wp(units))["image"]
        self.runs += len(units)
        return list(pictures_with_hair(list(images), self.hair_engine, self.framing, unweighted=self.unweighted))


@dataclass
class PhotoProducer:
    """Picture file -> image, everybody's hair. A file that cannot be read or has no face fails alone.

    reader None: no dye is asked for, and no hair is looked for.
    """

    reader: PhotoReader | None
    max_pixels: int

    def calls(self, batch: int) -> tuple[int, int]:
        """File by file: none waits for the slowest of a group. Twice as many as the engine computes at once: while one
        of a pair waits for it, the other decodes, dyes and writes.
        """
        return 1, 2 * (usable_cores() if self.reader is None else self.reader.engine.threads)

    def produce(self, units: Sequence[SourceUnit]) -> list[Picture | ImageError]:
        return [self._one(unit.source) for unit in units]

    def _one(self, path: Path) -> Picture | ImageError:
        try:
            photo = read_photo(path, max_pixels=self.max_pixels)
        except ImageError as error:  # names the file itself
            return error
        if self.reader is None:
            return Picture(photo.rgb, {}, profiled=photo.profiled)
        try:
            found = self.reader.find(photo.rgb)
        except ImageError as error:
            return ImageError(f"{path}: {error}")
        return Picture(photo.rgb, found.facts, found.heads, photo.profiled)
