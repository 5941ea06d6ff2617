"""The three-line API: open a bundle once, then render, find hair, recolor. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ohlora.base.types import Backend, Compat, PrecisionChoice, Rgb
from ohlora.base.values import Expression, Face, Ombre
from ohlora.bundle import Bundle
from ohlora.engines import Engine
from ohlora.errors import ImageError, InvalidInputError
from ohlora.latents.directions import Directions
from ohlora.latents.mapping import LatentSource
from ohlora.render.gpu.devices import DeviceSetting, chosen_devices, open_chain
from ohlora.render.gpu.pipeline import DevicePipeline, DeviceStreams
from ohlora.render.job import RenderJob, make_looks
from ohlora.render.photo_renderer import PhotoRenderer
from ohlora.render.plan import Output, PortraitPlan
from ohlora.render.sinks import Picture, dye, job_backends
from ohlora.render.sources import JobLatents, PortraitProducer, dyed_as_documented, pictures_with_hair

STREAM_CHUNK = 4


@dataclass(frozen=True, slots=True)
class Rendered:
    """One item of a stream. image: uint8 RGB [H,W,3]; facts: face, expression, ombre, hair share."""

    item: int
    image: Rgb
    facts: dict[str, Any]


class Renderer(PhotoRenderer):
    """Engines of one bundle, opened on first use and kept. Use as a context manager or call `close`.

    backend: "auto", "openvino" or "onnxruntime". precision: "fp32", "bf16" (OpenVINO on CPUs that have it; the engine
    must pass the bundle's probe first), or "auto": what the bundle's preset was measured in, else fp32.
    threads: parallel engine streams, default the usable cores.
    directions: replaces the bundle's own; InvalidInputError when they are for another generator.
    noise: "fixed", or the seed of another draw of a photographic generator's noise, one for all portraits.
    device: "cpu", "cuda:N", or "auto": a GPU, or with one line of warning the CPU. There `render` and `stream` run, as
    `device_setting` says (in float32 by default); mapping, `hair`, `recolor` and `parse` stay on the CPU.
    compat: "documented" finds and dyes hair as the documented system does, where this one differs (docs/documented.md);
    the hair finder then computes in float32.
    Raises BundleError for a missing or damaged bundle or part, EngineError when no engine works.
    """

    _ENGINES = (*PhotoRenderer._ENGINES, "_mapping", "_synthesis", "_mapping_end")

    def __init__(
        self,
        bundle: str | Path | Bundle = "demo",
        backend: Backend = "auto",
        precision: PrecisionChoice = "auto",
        threads: int | None = None,
        *,
        directions: Directions | None = None,
        noise: int | Literal["fixed"] = "fixed",
        device: str = "cpu",
        device_setting: DeviceSetting | None = None,
        compat: Compat | None = None,
    ) -> None:
        super().__init__(bundle, backend, precision, threads, compat)
        self.directions_override, self.device, self.device_setting = directions, device, device_setting
        self.noise = None if noise == "fixed" else _seed(noise)
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its settings and the path of its bundle: where it is read back, it opens engines of its own."""
        make = partial(
            type(self), self.bundle.path.absolute(), self.backend, self.precision, self.threads,
            directions=self.directions_override, noise="fixed" if self.noise is None else self.noise,
            device=self.device, device_setting=self.device_setting, compat=self.compat,
        )  # fmt: skip
        return make, ()

    def close(self) -> None:
        """Release the engines. The renderer opens them again when it is used again."""
        if self._on_device is not None:
            self._on_device.close()
        super().close()

    @cached_property
    def _mapping(self) -> Engine:
        return self.bundle.mapping_engine(self.backend, self.threads)

    @cached_property
    def _synthesis(self) -> Engine:
        return self.bundle.synthesis_engine(self.backend, self.precision, self.threads, noise=self.noise)

    @cached_property
    def _mapping_end(self) -> Engine:
        return self.bundle.mapping_end_engine(self.backend, self.threads)

    @property
    def label_size(self) -> int:
        """Label values the generator takes: 0, 3 or 7."""
        return self.bundle.generator_part().label_size

    @cached_property
    def directions(self) -> Directions | None:
        """Those given in place of the bundle's own, or these."""
        if self.directions_override is None:
            return self.bundle.direction_set()
        part = self.bundle.generator_part()
        self.directions_override.require_generator(part, part.state_sha256, f"bundle '{self.bundle.name}'")
        return self.directions_override

    def producer(self, job: RenderJob) -> PortraitProducer:
        """Checks that every look of the job can be made, then opens the engines it needs."""
        latents = self._latents(job)
        dyes = any(look.ombre is not None for look in job.looks)
        framing = self.bundle.generator_part().framing
        hair = self.hair_engine if dyes else None
        return PortraitProducer(latents, self._synthesis, hair, framing, self.documented)

    def device_pipeline(self, job: RenderJob, device: int, setting: DeviceSetting) -> DevicePipeline:
        """As `producer`, for a CUDA device, where everything but the mapping network runs, and for portraits that are
        not dyed there (`dyed_as_documented`) the hair model and the dye. Close it.
        """
        part = self.bundle.generator_part()
        dyes = any(look.ombre is not None for look in job.looks)
        finish = None
        if dyes and not dyed_as_documented(part):
            if setting.encoder != "cpu":
                raise InvalidInputError(
                    f"portraits of bundle '{self.bundle.name}' are dyed by the CPU, since their hair's edges are "
                    f"refined: encoder {setting.encoder} has no use, leave it 'cpu'"
                )
            hair, unweighted = self.hair_engine, self.documented
            finish = partial(pictures_with_hair, engine=hair, framing=part.framing, unweighted=unweighted)
        opened = partial(open_chain, noise=self.noise, compat=self.compat)
        chain = partial(opened, self.bundle, job, device, setting, dyes=dyes and finish is None)
        return DevicePipeline(self._latents(job), chain, setting.bucket, finish)

    def _latents(self, job: RenderJob) -> JobLatents:
        directions = self.directions if self._check(job) else None
        end = self._mapping_end if directions is not None and directions.needs_mapping_end else None
        source = LatentSource(self._mapping, end, directions)
        num_layers = self.bundle.generator_part().num_layers
        return JobLatents(job, source, self.bundle.w_avg(), num_layers, self.truncation(job))

    def truncation(self, job: RenderJob) -> tuple[float, int]:
        """psi and the number of layers it acts on: the job's, or the bundle's where the job leaves them open."""
        part = self.bundle.generator_part()
        return job.truncation(part.psi, part.num_layers)

    def _check(self, job: RenderJob) -> bool:
        """Whether the job moves a face. Raises InvalidInputError for looks that this bundle cannot make."""
        self.truncation(job)
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
        psi: float | None = None,
        *,
        truncation_layers: int | None = None,
    ) -> Rgb:
        """Every face with every expression and every ombre, in that nesting: uint8 RGB [N,H,W,3].

        psi, truncation_layers: as of `RenderJob`; None: the bundle's default psi (1: none), and all layers.
        """
        looks = make_looks(_listed(expressions), _listed(ombres))
        job = RenderJob(_listed(faces) or [], looks, psi=psi, truncation_layers=truncation_layers)
        size = self.bundle.generator_part().resolution
        images = np.empty((len(job), size, size, 3), dtype=np.uint8)
        for rendered in self.stream(job):
            images[rendered.item] = rendered.image
        return images

    def provenance(self, generator: bool) -> dict[str, Any]:
        """What a metadata row needs to make its picture again."""
        engine = self._synthesis if generator else self.hair_engine
        return {
            "bundle": self.bundle.name,
            "bundle_sha256": self.bundle.identity,
            "engine": f"{engine.backend}-{engine.precision}",
            **(self.noise_record if generator else {}),
            **self.compat_record(),
        }

    @property
    def noise_record(self) -> dict[str, int]:
        """For metadata and the request: nothing where the noise is fixed."""
        return {} if self.noise is None else {"noise": self.noise}


def _seed(noise: Any) -> int:
    if isinstance(noise, bool) or not isinstance(noise, int) or noise < 0:
        raise InvalidInputError(f"noise must be 'fixed' or a seed of 0 or more, got {noise!r}")
    return noise


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, Sequence) else [value]
