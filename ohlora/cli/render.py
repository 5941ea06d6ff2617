"""`ohlora render`: portraits in bulk from a generator bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohlora.cli import options


def render(
    faces: Annotated[
        list[str] | None,
        typer.Option(
            "--faces",
            help="Seeds (17, 0-999), a z-vector .csv/.npz/.npy (FILE:3-7), gallery[:NAME]. Repeatable.",
        ),
    ] = None,
    out: options.Out = Path("out"),
    bundle: options.BundleName = "demo",
    color: options.Color = None,
    ombre_height: options.Height = "0.7",
    grad_height: options.GradHeight = "0.5",
    eyes: Annotated[str, typer.Option("--eyes", help="Strength of the eyes direction. VALUES.")] = "0",
    mouth: Annotated[str, typer.Option("--mouth", help="Strength of the mouth direction. VALUES.")] = "0",
    pose: Annotated[str, typer.Option("--pose", help="Strength of the pose direction. VALUES.")] = "0",
    directions: options.Directions = None,
    psi: Annotated[float, typer.Option("--psi", help="Truncation, 1 = none.")] = 1.0,
    truncation_layers: Annotated[int, typer.Option("--truncation-layers", help="Layers that are truncated.")] = 0,
    job: Annotated[Path | None, typer.Option("--job", help="JSON job file in place of the options above.")] = None,
    format: options.Format = "jpeg",
    quality: options.Quality = 95,
    rounding: options.Rounding = "truncate",
    backend: options.Backend = "auto",
    precision: options.Precision = "f32",
    threads: options.Threads = None,
    batch: options.Batch = 8,
    workers: options.Workers = None,
    restart: options.Restart = False,
    contact_sheet: options.Sheet = False,
    json: options.Json = False,
) -> None:
    """Render portraits: every face with every expression and every ombre. Each portrait is generated once.

    VALUES are a number, a list `0.1,0.5,0.9` or `FIRST:LAST:COUNT`.

    Example: `ohlora render --bundle my-bundle --faces 0-999 --color 0:1:40 --out out`
    """
    from dataclasses import asdict

    from ohlora.cli.execute import Setting, execute
    from ohlora.directions import read_published_directions
    from ohlora.errors import BadRequest
    from ohlora.faces import load_faces
    from ohlora.render.job import OutputFormat, RenderJob, look_record, make_looks
    from ohlora.render.job_file import faces_record, read_job_file
    from ohlora.render.plan import PortraitPlan
    from ohlora.renderer import Renderer

    own = None if directions is None else read_published_directions(directions)
    with Renderer(bundle, backend, precision=precision, threads=threads, directions=own) as renderer:
        if job is not None:
            if faces or color is not None:
                raise BadRequest("give either --job or --faces/--color and the like, not both")
            planned = read_job_file(job, renderer.label_size, renderer.bundle)
        else:
            planned = RenderJob(
                load_faces(faces or [], renderer.label_size, renderer.bundle),
                make_looks(
                    options.make_expressions(eyes, mouth, pose),
                    options.make_ombres(color, ombre_height, grad_height),
                ),
                OutputFormat(format, quality, rounding),
                psi,
                truncation_layers,
            )
        producer = renderer.producer(planned)
        provenance = renderer.provenance(generator=True)
        request = {
            "command": "render",
            "faces": faces_record(planned.faces),
            "looks": [look_record(look) for look in planned.looks],
            "directions": None if renderer.directions is None else renderer.directions.sha256,
            "output": asdict(planned.output),
            "truncation": [planned.psi, planned.truncation_layers],
            **provenance,
        }
        setting = Setting(batch, workers, restart, contact_sheet, json)
        execute(
            PortraitPlan(planned),
            producer,
            out,
            planned.output,
            provenance,
            request,
            setting,
            lambda: {"generator_runs": producer.runs},
        )
