"""`ohlora recolor`: dye the hair of images and videos that exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

from typer import Argument, Option

from ohlora.cli import options
from ohlora.cli.report import ImageRun

if TYPE_CHECKING:
    from ohlora.photos.heads import FaceRules

DYE = options.Dye(color="0.5")


@dataclass(frozen=True)
class Faces:
    """How people are looked for."""

    detect: Annotated[str, Option(help="auto (find every head) or whole (each image is one portrait).")] = "auto"
    no_face: Annotated[str, Option(help="Images without a face: skip (reported), keep (as they are) or whole.")] = (
        "skip"
    )
    min_face: Annotated[
        float | None, Option(help="Smallest face in pixels, from 20. Default: 1/50 of the shorter side.")
    ] = None

    def rules(self) -> FaceRules:
        from ohlora.photos.heads import FaceRules

        return FaceRules(cast(Any, self.detect), cast(Any, self.no_face), self.min_face)


@options.grouped
def recolor(
    *,
    sources: Annotated[
        list[str] | None, Argument(help="Images, folders of images, or videos; 'example' is a portrait that ships.")
    ] = None,
    recursive: options.Recursive = False,
    dye: options.Dye = DYE,
    faces: Faces,
    smoothing: Annotated[
        float, Option(help="Of videos: fraction of the past in a frame's hair map, 0 to below 1.")
    ] = 0.6,
    max_megapixels: Annotated[float, Option(min=0.01, help="Refuse larger images.")] = 100,
    images: options.Images,
    engines: options.Engines,
    batch: Annotated[int, Option(min=1, max=4096, help="Images under way at once.")] = 4,
    run: ImageRun,
) -> None:
    """Dye the hair of everybody in existing images and videos, from below.

    VALUES are a number, a list `0.1,0.5,0.9` or `FIRST:LAST:COUNT`; several give several results of each source.
    Videos (mp4, mov, mkv, webm, animated gif) keep their format, size, frame rate and sound.

    Example: `ohlora recolor photos --out dyed --color 0.5 --ombre-height 0.7 --grad-height 0.5`

    Example: `ohlora recolor clip.mp4 --out dyed --color 0.9`
    """
    from ohlora.cli.execute import run_job
    from ohlora.cli.sources import sort_sources, source_paths, without
    from ohlora.photos.video import Smoothing
    from ohlora.render.job import make_looks
    from ohlora.render.jobs import Recoloring, photo_job, video_job

    looks = make_looks(None, dye.ombres())
    asked = Recoloring(looks, images.output(), faces.rules(), Smoothing(smoothing), max_megapixels)
    roots = source_paths(sources)
    pictures, videos = sort_sources(roots, recursive)
    with engines.renderer() as renderer:
        if videos:
            run_job(video_job(renderer, without(videos, run.out, roots), roots, asked), run)
        job = photo_job(renderer, without(pictures, run.out, roots), roots, asked, batch=batch)
        run_job(job, run, workers=run.workers, contact_sheet=run.contact_sheet)
