"""`ohlora recolor`: dye the hair of pictures that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohlora.cli import options


def recolor(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Pictures or folders of pictures; 'example' is a portrait that ships."),
    ] = None,
    out: options.Out = Path("out"),
    color: options.Color = "0.5",
    ombre_height: options.Height = "0.7",
    grad_height: options.GradHeight = "0.5",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Also look into subfolders.")] = False,
    format: options.Format = "jpeg",
    quality: options.Quality = 95,
    rounding: options.Rounding = "truncate",
    bundle: options.BundleName = "demo",
    backend: options.Backend = "auto",
    precision: options.Precision = "f32",
    threads: options.Threads = None,
    batch: options.Batch = 4,
    workers: options.Workers = None,
    max_megapixels: Annotated[float, typer.Option("--max-megapixels", min=0.01, help="Refuse larger pictures.")] = 100,
    restart: options.Restart = False,
    contact_sheet: options.Sheet = False,
    json: options.Json = False,
) -> None:
    """Dye the hair of existing portraits, from below.

    VALUES are a number, a list `0.1,0.5,0.9` or `FIRST:LAST:COUNT`; several give several pictures of each source.

    Example: `ohlora recolor photos --out dyed --color 0.5 --ombre-height 0.7 --grad-height 0.5`
    """
    from concurrent.futures import ThreadPoolExecutor

    from ohlora.cli.execute import Setting, execute
    from ohlora.engines import usable_cores
    from ohlora.images import list_images
    from ohlora.render.job import OutputFormat, look_record, make_looks
    from ohlora.render.plan import PhotoPlan, output_names
    from ohlora.renderer import Renderer

    ombres = options.make_ombres(color, ombre_height, grad_height)
    looks = make_looks(None, ombres)
    output = OutputFormat(format, quality, rounding)
    roots = [example_path() if source == "example" else Path(source) for source in sources or ["example"]]
    paths = without(list_images(roots, recursive), out)
    plan = PhotoPlan(paths, output_names(paths, roots), looks, output)
    with (
        Renderer(bundle, backend, precision=precision, threads=threads) as renderer,
        ThreadPoolExecutor(max_workers=workers or usable_cores(), thread_name_prefix="ohlora-read") as pool,
    ):
        producer = renderer.photo_producer(looks, pool, int(max_megapixels * 1e6))
        provenance = renderer.provenance(generator=False)
        request = {
            "command": "recolor",
            "sources": [[str(path.absolute()), *fingerprint(path)] for path in paths],
            "ombres": [look_record(look)["ombre"] for look in looks],
            "output": [output.format, output.quality, output.rounding],
            "max_megapixels": max_megapixels,
            **provenance,
        }
        setting = Setting(batch, workers, restart, contact_sheet, json)
        execute(plan, producer, out, output, provenance, request, setting)


def example_path() -> Path:
    """The portrait that ships with the package."""
    from importlib.resources import files

    return Path(str(files("ohlora"))) / "examples" / "astronaut.jpg"


def fingerprint(path: Path) -> tuple[int, int]:
    """Size and time of a source: a changed picture is another job, not a resumed one."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def without(paths: list[Path], out: Path) -> list[Path]:
    """Sources that do not lie in the output folder: results of an earlier run are not dyed again."""
    from ohlora.errors import BadRequest

    folder = out.resolve()
    kept = [path for path in paths if not path.resolve().is_relative_to(folder)]
    if not kept:
        raise BadRequest(f"all pictures lie in the output folder {out}: choose another --out")
    return kept
