"""The half of a renderer that takes images which exist: hair, face parts and dyes. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ohlora.base.closing import Closing
from ohlora.base.types import Backend, Compat, Detect, HairInput, NoFace, PrecisionChoice, Rgb, Rounding, check_choice
from ohlora.base.values import Ombre
from ohlora.bundle import Bundle
from ohlora.bundle.photo.first_use import open_bundle
from ohlora.engines import Engine
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.images import MAX_PIXELS
from ohlora.photos.heads import FaceRules, PhotoReader, dye_heads
from ohlora.photos.segmentation import SIZE, find_hair, parse_faces
from ohlora.render.job import Look
from ohlora.render.sinks import job_backends
from ohlora.render.sources import PhotoProducer


class PhotoRenderer(Closing):
    """The engines of one bundle that read images, opened on first use and kept; arguments as of `Renderer`."""

    _ENGINES: tuple[str, ...] = ("hair_engine", "parsing_engine")

    def __init__(
        self,
        bundle: str | Path | Bundle,
        backend: Backend,
        precision: PrecisionChoice,
        threads: int | None,
        compat: Compat | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self.backend, self.precision, self.threads = backend, precision, threads
        self.compat = None if compat is None else check_choice("compat", compat, get_args(Compat))

    def close(self) -> None:
        """Release the engines. The renderer opens them again when it is used again."""
        for name in self._ENGINES:
            engine = self.__dict__.pop(name, None)
            if engine is not None:
                engine.close()

    @cached_property
    def hair_engine(self) -> Engine:
        return self.bundle.hair_engine(self.backend, self.precision, self.threads, self.hair_input)

    @property
    def documented(self) -> bool:
        """Whether it computes as the documented system does (docs/documented.md)."""
        return self.compat == "documented"

    @property
    def hair_input(self) -> HairInput | None:
        """What the hair finder is fed in place of what the bundle says."""
        return "documented" if self.documented else None

    def compat_record(self) -> dict[str, str]:
        """For metadata and requests, which say nothing of what everybody has."""
        return {} if self.compat is None else {"compat": self.compat}

    @cached_property
    def parsing_engine(self) -> Engine:
        return self.bundle.parsing_engine(self.backend, self.precision, self.threads)

    def hair(self, images: Rgb | Sequence[Rgb]) -> NDArray[np.float32]:
        """Hair probability, float32 [N,h,w] in [0,1]: 224x224 for square images, the longer side 224 otherwise.

        images: uint8 RGB [N,H,W,3] or a sequence of images of one aspect.
        """
        return _stacked("hair", find_hair(self.hair_engine, _checked(images)), np.float32)

    def parse(self, images: Rgb | Sequence[Rgb]) -> NDArray[np.uint8]:
        """Classes of a face, uint8 [N,h,w]: 224x224 for square images, the longer side 224 otherwise.

        The ids are indices into `bundle.parsing_part().classes` (0 background ... 10 hair). images: as for `hair`.
        Raises BundleError when the bundle has no face parser.
        """
        return _stacked("parse", parse_faces(self.parsing_engine, _checked(images)), np.uint8)

    def recolor(
        self,
        images: Rgb | Sequence[Rgb],
        ombre: Ombre,
        detect: Detect = "auto",
        *,
        no_face: NoFace = "skip",
        min_face: float | None = None,
        rounding: Rounding = "truncate",
    ) -> list[Rgb]:
        """Dye the hair of images that exist. Any size and shape each; uint8 RGB in and out, same size.

        detect: "auto" finds the people in each image, as `ohlora recolor` does; "whole" takes it as one portrait,
        which is what generators and croppers give. no_face, min_face: as in `FaceRules`; with "skip", an image
        without a face raises ImageError.
        """
        reader = self.photo_reader(FaceRules(detect, no_face, min_face))
        dyed = []
        for number, (image, backend) in enumerate(zip(_checked(images), job_backends(), strict=False)):
            try:
                found = reader.find(image)
            except ImageError as error:
                raise ImageError(f"picture {number}: {error}") from error
            dyed.append(dye_heads(image, found.heads, ombre, rounding, backend))
        return dyed

    def photo_reader(self, rules: FaceRules | None = None) -> PhotoReader:
        """Finds everybody's hair in photographs, with this bundle's student."""
        return PhotoReader(self.hair_engine, rules, unweighted=self.documented)

    def photo_producer(
        self, looks: Sequence[Look], max_pixels: int = MAX_PIXELS, rules: FaceRules | None = None
    ) -> PhotoProducer:
        """For jobs over image files. rules: default "auto", as `FaceRules` has it."""
        dyes = any(look.ombre is not None for look in looks)
        return PhotoProducer(self.photo_reader(rules) if dyes else None, max_pixels)


def _stacked(method: str, maps: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    if len({one.shape for one in maps}) > 1:
        raise InvalidInputError(f"{method}() takes pictures of one aspect ratio: call it once per shape")
    return np.stack(maps) if maps else np.zeros((0, SIZE, SIZE), dtype)


def _checked(images: Rgb | Sequence[Rgb]) -> list[Rgb]:
    pictures = list(images) if not (isinstance(images, np.ndarray) and images.ndim == 3) else [images]
    for picture in pictures:
        known = isinstance(picture, np.ndarray)
        if not known or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            got = f"{picture.dtype} {picture.shape}" if known else type(picture).__name__
            raise InvalidInputError(f"pictures must be uint8 RGB arrays [H,W,3], got {got}")
    return pictures
