"""`ohlora recolor`: dye the hair of pictures and videos that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohlora.cli import options


def recolor(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Pictures, folders of pictures, or videos; 'example' is a portrait that ships."),
    ] = None,
    out: options.Out = Path("out"),
    color: options.Color = "0.5",
    ombre_height: options.Height = "0.7",
    grad_height: options.GradHeight = "0.5",
    detect: Annotated[
        str, typer.Option("--detect", help="auto (find every head) or whole (each image is one portrait).")
    ] = "auto",
    no_face: Annotated[
        str,
        typer.Option("--no-face", help="Pictures without a face: skip (reported), keep (as they are) or whole."),
    ] = "skip",
    min_face: Annotated[
        float | None,
        typer.Option("--min-face", help="Smallest face in pixels, from 20. Default: 1/50 of the shorter side."),
    ] = None,
    smoothing: Annotated[
        float, typer.Option("--smoothing", help="Of videos: share of the past in a frame's hair map, 0 to below 1.")
    ] = 0.6,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Also look into subfolders.")] = False,
    format: options.Format = "jpeg",
    quality: options.Quality = 95,
    rounding: options.Rounding = "truncate",
    bundle: options.BundleName = "demo",
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    threads: options.Threads = None,
    batch: options.Batch = 4,
    workers: options.Workers = None,
    max_megapixels: Annotated[float, typer.Option("--max-megapixels", min=0.01, help="Refuse larger pictures.")] = 100,
    restart: options.Restart = False,
    contact_sheet: options.Sheet = False,
    json: options.Json = False,
) -> None:
    """Dye the hair of everybody in existing pictures and videos, from below.

    VALUES are a number, a list `0.1,0.5,0.9` or `FIRST:LAST:COUNT`; several give several results of each source.
    Videos (mp4, mov, mkv, webm, animated gif) keep their format, size, frame rate and sound.

    Example: `ohlora recolor photos --out dyed --color 0.5 --ombre-height 0.7 --grad-height 0.5`

    Example: `ohlora recolor clip.mp4 --out dyed --color 0.9`
    """

    from ohlora.cli.execute import Setting, execute
    from ohlora.cli.recolor_video import VideoSetting, recolor_videos
    from ohlora.cli.sources import example_path, fingerprint, sort_sources, without
    from ohlora.photos.face_detector import FaceDetector
    from ohlora.photos.heads import FaceRules
    from ohlora.photos.video import Smoothing
    from ohlora.render.job import OutputFormat, look_record, make_looks
    from ohlora.render.plan import PhotoPlan, output_names
    from ohlora.render.renderer import Renderer

    ombres = options.make_ombres(color, ombre_height, grad_height)
    looks = make_looks(None, ombres)
    output = OutputFormat.checked(format, quality, rounding)
    rules = FaceRules(detect, no_face, min_face)
    detector = FaceDetector(min_face=min_face)  # refuses a minimum face out of range before anything is opened
    steady = Smoothing(smoothing)
    roots = [example_path() if source == "example" else Path(source) for source in sources or ["example"]]
    pictures, videos = sort_sources(roots, recursive)
    looking = [rules.detect, rules.no_face, rules.min_face, detector.identity if rules.detect == "auto" else None]
    with Renderer(bundle, backend, precision=precision, threads=threads) as renderer:
        provenance = renderer.provenance(generator=False)
        request = {
            "command": "recolor",
            "ombres": [look_record(look)["ombre"] for look in looks],
            "output": [output.format, output.quality, output.rounding],
            "faces": looking,
            "max_megapixels": max_megapixels,
            **provenance,
        }
        if videos:
            paths = without(videos, out)
            setting = VideoSetting(steady, rules, quality, output.rounding, int(max_megapixels * 1e6), restart, json)
            names = output_names(paths, roots)
            recolor_videos(renderer, paths, names, [look.ombre for look in looks], out, request, provenance, setting)
        paths = without(pictures, out)
        plan = PhotoPlan(paths, output_names(paths, roots), looks, output)
        producer = renderer.photo_producer(looks, int(max_megapixels * 1e6), rules)
        request["sources"] = [[str(path.absolute()), *fingerprint(path)] for path in paths]
        execute(
            plan,
            producer,
            out,
            output,
            provenance,
            request,
            Setting(batch, workers, restart, contact_sheet, json),
        )
