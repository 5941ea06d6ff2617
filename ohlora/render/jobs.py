"""What can be asked of the job loop (`run_items`): portraits, photographs, videos and animations.

A request keeps its form from version to version: folders that were begun before are resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ohlora.base.types import Rgb
from ohlora.base.values import Face
from ohlora.io.animation import AnimationFormat
from ohlora.photos.face_detector import FaceDetector
from ohlora.photos.heads import FaceRules
from ohlora.photos.video import Smoothing, recolor_video
from ohlora.render.gpu.devices import DeviceSetting
from ohlora.render.gpu.processes import DeviceExecutor
from ohlora.render.job import Look, OutputFormat, RenderJob, look_record
from ohlora.render.job_file import faces_record
from ohlora.render.movies import AnimationPlan, MovieExecutor, VideoPlan, moving_frames
from ohlora.render.pipeline import CpuExecutor
from ohlora.render.plan import PhotoPlan, PortraitPlan, SourceUnit, output_names
from ohlora.render.renderer import Renderer
from ohlora.render.run_items import Advance, Executor, Job

BATCH = 8


def portrait_job(
    renderer: Renderer,
    asked: RenderJob,
    *,
    batch: int = BATCH,
    devices: Sequence[int] = (),
    setting: DeviceSetting | None = None,
) -> Job:
    """Portraits as image files. batch: portraits under way at once, on the CPU.

    devices: numbers of GPUs that make them instead, as `setting` says.
    Raises as `Renderer` does; InvalidInputError for looks that the bundle cannot make.
    """
    executor: Executor
    if devices:
        executor = DeviceExecutor(renderer, asked, devices, setting or DeviceSetting())
        provenance = executor.provenance()
    else:
        executor = CpuExecutor(renderer.producer(asked), batch)
        provenance = renderer.provenance(generator=True)
    request = {
        "command": "render",
        "faces": faces_record(asked.faces),
        "looks": [look_record(look) for look in asked.looks],
        "directions": directions_record(renderer),
        "output": asdict(asked.output),
        "truncation": list(renderer.truncation(asked)),
    }
    return Job(PortraitPlan(asked), executor, request, provenance, asked.output)


@dataclass(frozen=True)
class Recoloring:
    """How photographs and videos are dyed. smoothing: of videos. max_megapixels: larger ones are refused."""

    looks: tuple[Look, ...]
    output: OutputFormat = field(default_factory=OutputFormat)
    rules: FaceRules = field(default_factory=FaceRules)
    smoothing: Smoothing = field(default_factory=Smoothing)
    max_megapixels: float = 100

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1e6)

    def request(self, paths: Sequence[Path]) -> dict[str, Any]:
        detector = FaceDetector(min_face=self.rules.min_face).identity if self.rules.detect == "auto" else None
        return {
            "command": "recolor",
            "ombres": [look_record(look)["ombre"] for look in self.looks],
            "output": [self.output.format, self.output.quality, self.output.rounding],
            "faces": [self.rules.detect, self.rules.no_face, self.rules.min_face, detector],
            "max_megapixels": self.max_megapixels,
            "sources": files_record(paths),
        }


def photo_job(
    renderer: Renderer, paths: Sequence[Path], roots: Sequence[Path], asked: Recoloring, *, batch: int = 4
) -> Job:
    """Dyed photographs. roots: the folders that `paths` were found in, whose subfolders the output keeps."""
    plan = PhotoPlan(paths, output_names(paths, roots), asked.looks, asked.output)
    producer = renderer.photo_producer(asked.looks, asked.max_pixels, asked.rules)
    provenance = renderer.provenance(generator=False)
    return Job(plan, CpuExecutor(producer, batch), asked.request(paths), provenance, asked.output)


def video_job(renderer: Renderer, paths: Sequence[Path], roots: Sequence[Path], asked: Recoloring) -> Job:
    """Dyed videos; each is read once for all dyes that are still to do."""

    def write(unit: SourceUnit, files: list[Path], advance: Advance, finish: Callable[[], None]) -> dict[str, Any]:
        result = recolor_video(
            unit.source,
            [(file, output.ombre) for file, output in zip(files, unit.outputs, strict=True)],
            renderer.hair_engine,
            rules=asked.rules,
            smoothing=asked.smoothing,
            quality=asked.output.quality,
            rounding=asked.output.rounding,
            max_pixels=asked.max_pixels,
            advance=advance,
            finish=finish,
        )
        return result.facts()

    plan = VideoPlan(paths, output_names(paths, roots), asked.looks, None)
    request = {**asked.request(paths), "smoothing": [asked.smoothing.past, asked.smoothing.every]}
    return Job(plan, MovieExecutor(write), request, renderer.provenance(generator=False))


def animation_job(
    renderer: Renderer,
    looks: Sequence[Look],
    format: AnimationFormat,
    movement: Mapping[str, Any],
    *,
    faces: Sequence[Face] | None = None,
    photos: Sequence[Path] = (),
    roots: Sequence[Path] = (),
) -> Job:
    """A moving picture of each face, or else of each photo, one look a frame. roots: as of `photo_job`.

    movement: what the looks come from, for the metadata.
    """
    subjects: Sequence[Face] | Sequence[Path]
    if faces is None:
        subjects, names, identity = photos, output_names(photos, roots), files_record(photos)
    else:
        subjects, names, identity = faces, [face.name for face in faces], faces_record(faces)

    def write(unit: SourceUnit, files: list[Path], advance: Advance, finish: Callable[[], None]) -> dict[str, Any]:
        def counted() -> Iterator[Rgb]:
            for frame in moving_frames(renderer, unit.source, looks):
                yield frame
                advance(1)
            finish()

        return {"frames": format.write(files[0], counted()), "fps": format.fps, **movement}

    request = {
        "command": "animate",
        "subjects": identity,
        "looks": [look_record(look) for look in looks],
        "format": [format.format, format.fps, format.quality],
        "directions": directions_record(renderer),
    }
    plan = AnimationPlan(subjects, names, f".{format.format}", len(looks))
    return Job(plan, MovieExecutor(write), request, renderer.provenance(generator=faces is not None))


def files_record(paths: Sequence[Path]) -> list[Any]:
    """Path, size and time of each source: a changed picture is another job, not a resumed one."""
    statuses = [(path, path.stat()) for path in paths]
    return [[str(path.absolute()), status.st_size, status.st_mtime_ns] for path, status in statuses]


def directions_record(renderer: Renderer) -> str | None:
    return None if renderer.directions is None else renderer.directions.sha256
