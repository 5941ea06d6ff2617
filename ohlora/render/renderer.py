"""The three-line API: open a bundle once, then render, find hair, recolour. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb, Rounding
from ohlora.base.values import Expression, Face, Ombre
from ohlora.bundle import Bundle
from ohlora.engines import Engine
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.images import MAX_PIXELS
from ohlora.latents.directions import Directions, directions_from_bundle
from ohlora.latents.mapping import LatentSource
from ohlora.photos.heads import FaceRules, PhotoReader, dye_heads
from ohlora.photos.segmentation import find_hair, parse_faces
from ohlora.render.gpu.devices import DeviceSetting, chosen_devices, open_chain
from ohlora.render.gpu.pipeline import DevicePipeline
from ohlora.render.gpu.stream import DeviceStreams
from ohlora.render.job import Look, RenderJob, make_looks
from ohlora.render.plan import Output, PortraitPlan
from ohlora.render.sinks import Picture, dye, job_backends
from ohlora.render.sources import PhotoProducer, PortraitProducer

STREAM_CHUNK = 4


@dataclass(frozen=True, slots=True)
class Rendered:
    """One item of a stream. image: uint8 RGB [H,W,3]; facts: face, expression, ombre, hair share."""

    item: int
    image: Rgb
    facts: dict[str, Any]


class Renderer:
    """Engines of one bundle, opened on first use and kept. Use as a context manager or call `close`.

    backend: "auto", "openvino" or "onnxruntime". precision: "fp32", "bf16" (OpenVINO on CPUs that have it; the engine
    must pass the bundle's probe first), or "auto": what the bundle's preset was measured in, else fp32.
    threads: parallel engine streams, default the usable cores.
    directions: replaces the bundle's own; InvalidInputError when they are for another generator.
    device: "cpu", "cuda:N", or "auto": a GPU, or with one line of warning the CPU. There `render` and `stream` run, as
    `device_setting` says (in float32 by default); mapping, `hair`, `recolor` and `parse` stay on the CPU.
    Raises BundleError for a missing or damaged bundle or part, EngineError when no engine works.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle = "demo",
        backend: str = "auto",
        *,
        precision: str = "auto",
        threads: int | None = None,
        directions: Directions | None = None,
        device: str = "cpu",
        device_setting: DeviceSetting | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.backend, self.precision, self.threads = backend, precision, threads
        self._directions = directions
        devices = chosen_devices(device)
        if len(devices) > 1:
            raise InvalidInputError(f"a Renderer takes one device, not {device}: `ohlora render` takes several")
        self._on_device: DeviceStreams | None = None
        if devices:
            setting = device_setting or DeviceSetting()
            if setting.encoder != "cpu":
                raise InvalidInputError(
                    f"a Renderer gives arrays, so encoder {setting.encoder} has no use: leave it 'cpu'"
                )
            make = partial(self.device_pipeline, device=devices[0], setting=setting)
            self._on_device = DeviceStreams(make, self._latents)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the engines. The renderer opens them again when it is used again."""
        if self._on_device is not None:
            self._on_device.close()
        for engine in (
            self.__dict__.pop("hair_engine", None),
            self.__dict__.pop("parsing_engine", None),
            self.__dict__.pop("_mapping", None),
            self.__dict__.pop("_mapping_end", None),
            *(self.__dict__.pop("_generator", None) or ()),
        ):
            if engine is not None:
                engine.close()

    @cached_property
    def hair_engine(self) -> Engine:
        return self.bundle.hair_engine(self.backend, self.precision, self.threads)

    @cached_property
    def parsing_engine(self) -> Engine:
        return self.bundle.parsing_engine(self.backend, self.precision, self.threads)

    @cached_property
    def _generator(self) -> tuple[Engine, Engine]:
        return self.bundle.generator_engines(self.backend, self.precision, self.threads)

    @cached_property
    def _mapping(self) -> Engine:
        """Alone, for renderers whose synthesis runs on a device."""
        return self.bundle.mapping_engine(self.backend, self.threads)

    @cached_property
    def _mapping_end(self) -> Engine:
        return self.bundle.mapping_end_engine(self.backend, self.threads)

    @property
    def label_size(self) -> int:
        """Label values the generator takes: 0, 3 or 7."""
        return self.bundle.generator_part().label_size

    @property
    def directions_override(self) -> Directions | None:
        """Those given in place of the bundle's own."""
        return self._directions

    @cached_property
    def directions(self) -> Directions | None:
        if self._directions is not None:
            part = self.bundle.generator_part()
            self._directions.require_generator(part, part.state_sha256, f"bundle '{self.bundle.name}'")
            return self._directions
        found = self.bundle.manifest.directions
        if found is None:
            return None
        return directions_from_bundle(
            self.bundle.directions(),
            found.groups,
            f"bundle '{self.bundle.name}'",
            space=found.space,
            networks=found.networks,
        )

    def producer(self, job: RenderJob) -> PortraitProducer:
        """Checks that every look of the job can be made, then opens the engines it needs."""
        moves = self._check(job)
        mapping, synthesis = self._generator
        dyes = any(look.ombre is not None for look in job.looks)
        return PortraitProducer(
            job=job,
            mapping=mapping,
            synthesis=synthesis,
            hair_engine=self.hair_engine if dyes else None,
            w_mean=self.bundle.w_avg(),
            num_layers=self.bundle.generator_part().num_layers,
            directions=self.directions,
            mapping_end=self._end_for(moves),
        )

    def device_pipeline(self, job: RenderJob, device: int, setting: DeviceSetting) -> DevicePipeline:
        """As `producer`, for a CUDA device, where everything but the mapping network runs. Close it."""
        return DevicePipeline(
            job=job,
            latents=self._latents(job),
            w_mean=self.bundle.w_avg(),
            num_layers=self.bundle.generator_part().num_layers,
            open_chain=lambda bucket: open_chain(self.bundle, job, device, setting, bucket),
            bucket=setting.bucket,
        )

    def _latents(self, job: RenderJob) -> LatentSource:
        return LatentSource(self._mapping, self._end_for(self._check(job)), self.directions)

    def _end_for(self, moves: bool) -> Engine | None:
        return self._mapping_end if moves and self.directions and self.directions.needs_mapping_end else None

    def _check(self, job: RenderJob) -> bool:
        """Whether the job moves a face. Raises InvalidInputError for looks that this bundle cannot make."""
        part = self.bundle.generator_part()
        if job.truncation_layers > part.num_layers:
            raise InvalidInputError(f"truncation layers must be in [0, {part.num_layers}], got {job.truncation_layers}")
        moves = any(not look.expression.neutral for look in job.looks)
        if moves:
            if self.directions is None:
                raise InvalidInputError(
                    f"eyes, mouth and pose need directions, and bundle '{self.bundle.name}' has none: "
                    "give --directions FOLDER or leave them at 0"
                )
            self.directions.check_all(job.faces)
        return moves

    def stream(self, job: RenderJob) -> Iterator[Rendered]:
        """The job's items in order, as arrays; memory does not grow with the job."""
        if self._on_device is not None:
            for item, image, facts in self._on_device.stream(job):
                yield Rendered(item, image, facts)
            return
        plan, producer, backends = PortraitPlan(job), self.producer(job), job_backends()
        looks = len(job.looks)
        expressions = len({look.expression for look in job.looks})
        # A face's items may alternate between expressions, so a face is finished before its items are given out.
        faces_per_chunk = max(1, STREAM_CHUNK // expressions)
        for start in range(0, len(job.faces), faces_per_chunk):
            items = range(start * looks, min(start + faces_per_chunk, len(job.faces)) * looks)
            units = list(plan.units(items))
            made: dict[int, tuple[Picture, Output]] = {}
            for unit, picture in zip(units, producer.produce(units), strict=True):
                if isinstance(picture, ImageError):
                    raise picture
                made.update({output.item: (picture, output) for output in unit.outputs})
            for item in items:
                picture, output = made[item]
                image = dye(picture, output.ombre, job.output.rounding, next(backends))
                yield Rendered(item, image, {**output.facts, **picture.facts})

    def render(
        self,
        faces: Face | Sequence[Face],
        expressions: Expression | Sequence[Expression] | None = None,
        ombres: Ombre | Sequence[Ombre | None] | None = None,
        *,
        psi: float = 1.0,
        truncation_layers: int = 0,
    ) -> Rgb:
        """Every face with every expression and every ombre, in that nesting: uint8 RGB [N,H,W,3]."""
        looks = make_looks(_listed(expressions), _listed(ombres))
        job = RenderJob(_listed(faces) or [], looks, psi=psi, truncation_layers=truncation_layers)
        size = self.bundle.generator_part().resolution
        images = np.empty((len(job), size, size, 3), dtype=np.uint8)
        for rendered in self.stream(job):
            images[rendered.item] = rendered.image
        return images

    def hair(self, images: Rgb | Sequence[Rgb]) -> NDArray[np.float32]:
        """Hair probability, float32 [N,h,w] in [0,1]: 224x224 for square pictures, the longer side 224 otherwise.

        images: uint8 RGB [N,H,W,3] or a sequence of pictures of one aspect.
        """
        maps = find_hair(self.hair_engine, _pictures(images))
        if len({one.shape for one in maps}) > 1:
            raise InvalidInputError("hair() takes pictures of one aspect ratio: call it once per shape")
        return np.stack(maps) if maps else np.zeros((0, 224, 224), np.float32)

    def parse(self, images: Rgb | Sequence[Rgb]) -> NDArray[np.uint8]:
        """Classes of a face, uint8 [N,h,w]: 224x224 for square pictures, the longer side 224 otherwise.

        The ids are indices into `bundle.parsing_part().classes` (0 background ... 10 hair). images: as for `hair`.
        Raises BundleError when the bundle has no face parser.
        """
        maps = parse_faces(self.parsing_engine, _pictures(images))
        if len({one.shape for one in maps}) > 1:
            raise InvalidInputError("parse() takes pictures of one aspect ratio: call it once per shape")
        return np.stack(maps) if maps else np.zeros((0, 224, 224), np.uint8)

    def recolor(
        self,
        images: Rgb | Sequence[Rgb],
        ombre: Ombre,
        *,
        detect: str = "auto",
        no_face: str = "skip",
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
        for number, (image, backend) in enumerate(zip(_pictures(images), job_backends(), strict=False)):
            try:
                found = reader.find(image)
            except ImageError as error:
                raise ImageError(f"picture {number}: {error}") from error
            dyed.append(dye_heads(image, found.heads, ombre, rounding, backend))
        return dyed

    def photo_reader(self, rules: FaceRules | None = None) -> PhotoReader:
        """Finds everybody's hair in photographs, with this bundle's student."""
        return PhotoReader(self.hair_engine, rules)

    def photo_producer(
        self,
        looks: Sequence[Look],
        max_pixels: int = MAX_PIXELS,
        rules: FaceRules | None = None,
    ) -> PhotoProducer:
        """For jobs over picture files. rules: default "auto", as `FaceRules` has it."""
        dyes = any(look.ombre is not None for look in looks)
        return PhotoProducer(self.photo_reader(rules) if dyes else None, max_pixels)

    def provenance(self, generator: bool) -> dict[str, Any]:
        """What a metadata row needs to make its picture again."""
        engine = self._generator[1] if generator else self.hair_engine
        return {
            "bundle": self.bundle.name,
            "bundle_sha256": self.bundle.identity,
            "engine": f"{engine.backend}-{engine.precision}",
        }


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, Sequence) else [value]


def _pictures(images: Rgb | Sequence[Rgb]) -> list[Rgb]:
    pictures = list(images) if not (isinstance(images, np.ndarray) and images.ndim == 3) else [images]
    for picture in pictures:
        if (
            not isinstance(picture, np.ndarray)
            or picture.dtype != np.uint8
            or picture.ndim != 3
            or picture.shape[2] != 3
        ):
            got = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise InvalidInputError(f"pictures must be uint8 RGB arrays [H,W,3], got {got}")
    return pictures
