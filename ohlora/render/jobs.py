"""What can be asked of the job loop (`run_items`): portraits, photographs, videos and animations.

A request keeps its form from version to version: folders that were begun before are resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ohlora.base.types import Rgb
from ohlora.base.values import Face
from ohlora.errors import ImageError, InvalidInputError
from ohlora.io.animation import AnimationFormat
from ohlora.io.marking import RECOLORED, RENDERED, Mark
from ohlora.photos.face_detector import FaceDetector
from ohlora.photos.heads import FaceRules
from ohlora.photos.video import Smoothing, recolor_video
from ohlora.render.gpu.devices import DeviceSetting
from ohlora.render.gpu.processes import DeviceExecutor
from ohlora.render.job import Look, OutputFormat, RenderJob, look_record
from ohlora.render.job_file import faces_record
from ohlora.render.movies import AnimationPlan, MovieExecutor, VideoPlan, moving_frames
from ohlora.render.pipeline import CpuExecutor
from ohlora.render.plan import PhotoPlan, PortraitPlan, Source, SourceUnit, file_sources
from ohlora.render.renderer import Renderer
from ohlora.render.run_items import Advance, Executor, Job, check_size
from ohlora.render.sources import dyed_as_documented

BATCH = 8


FORMER = {"mark": False}  # how files were written before they were marked: `run_items.Job.former`


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
    check_size(len(asked), PortraitPlan.noun)  # before records of it are made
    output = asked.output
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
        "output": {"format": output.format, "quality": output.quality, "rounding": output.rounding},
        "mark": output.mark,
        "truncation": list(renderer.truncation(asked)),
        **edges_record(renderer, asked.looks),
        **renderer.compat_record(),
    }
    return Job(PortraitPlan(asked), executor, request, provenance, output, FORMER)


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

    def request(self, renderer: Renderer, paths: Sequence[Path]) -> dict[str, Any]:
        detector = FaceDetector(min_face=self.rules.min_face).identity if self.rules.detect == "auto" else None
        return {
            "command": "recolor",
            "ombres": [look_record(look)["ombre"] for look in self.looks],
            "output": [self.output.format, self.output.quality, self.output.rounding],
            "mark": self.output.mark,
            "faces": [self.rules.detect, self.rules.no_face, self.rules.min_face, detector],
            "max_megapixels": self.max_megapixels,
            "sources": files_record(paths),
            **renderer.compat_record(),
        }


def photo_job(
    renderer: Renderer, paths: Sequence[Path], roots: Sequence[Path], asked: Recoloring, *, batch: int = 4
) -> Job:
    """Dyed photographs. roots: the folders that `paths` were found in, whose subfolders the output keeps."""
    plan = PhotoPlan(file_sources(paths, roots), asked.looks, asked.output)
    producer = renderer.photo_producer(asked.looks, asked.max_pixels, asked.rules)
    provenance = renderer.provenance(generator=False)
    return Job(plan, CpuExecutor(producer, batch), asked.request(renderer, paths), provenance, asked.output, FORMER)


def video_job(renderer: Renderer, paths: Sequence[Path], roots: Sequence[Path], asked: Recoloring) -> Job:
    """Dyed videos; each is read once for all dyes that are still to do."""

    def write(
        unit: SourceUnit, files: list[Path], mark: Mark | None, advance: Advance, finish: Callable[[], None]
    ) -> dict[str, Any]:
        result = recolor_video(
            unit.source,
            [(file, output.ombre) for file, output in zip(files, unit.outputs, strict=True)],
            renderer.hair_engine,
            rules=asked.rules,
            smoothing=asked.smoothing,
            quality=asked.output.quality,
            rounding=asked.output.rounding,
            unweighted=renderer.documented,
            max_pixels=asked.max_pixels,
            mark=mark,
            advance=advance,
            finish=finish,
        )
        return result.facts()

    plan = VideoPlan(file_sources(paths, roots), asked.looks, None)
    request = {**asked.request(renderer, paths), "smoothing": [asked.smoothing.past, asked.smoothing.every]}
    return Job(plan, MovieExecutor(write), request, renderer.provenance(generator=False), asked.output, FORMER)


def animation_job(
    renderer: Renderer,
    looks: Sequence[Look],
    format: AnimationFormat,
    movement: Mapping[str, Any],
    *,
    faces: Sequence[Face] | None = None,
    photos: Sequence[Path] = (),
    roots: Sequence[Path] = (),
    mark: bool = True,
) -> Job:
    """A moving picture of each face, or else of each photo, one look a frame. roots: as of `photo_job`.

    movement: what the looks come from, for the metadata. mark: whether files say that they are synthetic.
    """
    if faces is None:
        sources, identity = file_sources(photos, roots), files_record(photos)
    else:
        sources, identity = [Source(face, face.name, face.name) for face in faces], faces_record(faces)

    def write(
        unit: SourceUnit, files: list[Path], mark: Mark | None, advance: Advance, finish: Callable[[], None]
    ) -> dict[str, Any]:
        def counted() -> Iterator[Rgb]:
            for frame in moving_frames(renderer, unit.source, looks):
                yield frame
                advance(1)
            finish()

        try:
            written = format.write(files[0], counted(), mark)
        except InvalidInputError as error:
            if faces is None:  # of this photo's size; faces all have one, and it is the request that is wrong
                raise ImageError(f"cannot animate {unit.source}: {error}") from error
            raise
        return {"frames": written, "fps": format.fps, **movement}

    request = {
        "command": "animate",
        "subjects": identity,
        "looks": [look_record(look) for look in looks],
        "format": [format.format, format.fps, format.quality],
        "directions": directions_record(renderer),
        "mark": mark,
        **({} if faces is None else edges_record(renderer, looks)),
        **renderer.compat_record(),
    }
    plan = AnimationPlan(sources, f".{format.format}", len(looks), RENDERED if faces is not None else RECOLORED)
    provenance = renderer.provenance(generator=faces is not None)
    return Job(plan, MovieExecutor(write), request, provenance, OutputFormat(mark=mark), FORMER)


def edges_record(renderer: Renderer, looks: Sequence[Look]) -> dict[str, str]:
    """How portraits are dyed, where earlier versions did it otherwise: what they began is not continued."""
    if all(look.ombre is None for look in looks) or dyed_as_documented(renderer.bundle.generator_part()):
        return {}
    return {"edges": "refined"}


def files_record(paths: Sequence[Path]) -> list[Any]:
    """Path, size and time of each source: a changed picture is another job, not a resumed one.

    Where there is none (a broken link, a file that is gone since it was listed) its item fails when it is read.
    """
    return [[str(path.absolute()), *_status(path)] for path in paths]


def _status(path: Path) -> tuple[int, int] | tuple[None, None]:
    try:
        status = path.stat()
    except OSError:
        return None, None
    return status.st_size, status.st_mtime_ns


def directions_record(renderer: Renderer) -> str | None:
    return None if renderer.directions is None else renderer.directions.sha256
