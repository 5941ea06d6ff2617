"""`ohlora render`: portraits in bulk from a generator bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ohlora.cli import options

if TYPE_CHECKING:
    from ohlora.base.values import Face
    from ohlora.bundle import Bundle
    from ohlora.render.job import Look

HEIGHT, GRAD_HEIGHT, STRENGTH = "0.7", "0.5", "0"
BATCH = 8  # on the CPU
SEEDS_SHOWN = 16  # faces made when none are asked for and the bundle has no gallery


def render(
    faces: Annotated[
        list[str] | None,
        typer.Option(
            "--faces",
            help="Seeds (17, 0-999), a z-vector .csv/.npz/.npy (FILE:3-7), gallery[:NAME]. Repeatable.",
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", help="The faces of seeds 0 to COUNT - 1, in place of --faces.")
    ] = None,
    out: options.Out = Path("out"),
    bundle: options.BundleName = "demo",
    color: options.Color = None,
    ombre_height: options.Height = HEIGHT,
    grad_height: options.GradHeight = GRAD_HEIGHT,
    eyes: Annotated[str, typer.Option("--eyes", help="-1.2 wide open .. 1.2 closed. VALUES.")] = STRENGTH,
    mouth: Annotated[str, typer.Option("--mouth", help="-1.8 wide open .. 1.8 closed. VALUES.")] = STRENGTH,
    pose: Annotated[str, typer.Option("--pose", help="-1.8 .. 1.8, the head turns (demo: tilts). VALUES.")] = STRENGTH,
    expression: Annotated[
        list[str] | None,
        typer.Option(
            "--expression", help="In words: 'eyes wide, mouth normal, pose none', or in Korean. Repeatable: more looks."
        ),
    ] = None,
    expression_seed: options.ExpressionSeed = None,
    looks: Annotated[
        str | None, typer.Option("--looks", help="A named set: still50, the documented stills (expressions and dyes).")
    ] = None,
    directions: options.Directions = None,
    space: options.Space = None,
    psi: Annotated[float, typer.Option("--psi", help="Truncation, 1 = none.")] = 1.0,
    truncation_layers: Annotated[int, typer.Option("--truncation-layers", help="Layers that are truncated.")] = 0,
    job: Annotated[Path | None, typer.Option("--job", help="JSON job file in place of the options above.")] = None,
    format: options.Format = "jpeg",
    quality: options.Quality = 95,
    rounding: options.Rounding = "truncate",
    device: options.Device = "cpu",
    backend: options.RenderBackend = "auto",
    precision: options.RenderPrecision = "auto",
    engines: options.Engines = None,
    encoder: options.Encoder = "cpu",
    threads: options.Threads = None,
    batch: options.RenderBatch = None,
    workers: options.Workers = None,
    restart: options.Restart = False,
    contact_sheet: options.Sheet = False,
    json: options.Json = False,
) -> None:
    """Render portraits: every face with every expression and every ombre. Each portrait is generated once.

    VALUES are a number, a list `0.1,0.5,0.9` or `FIRST:LAST:COUNT`. Without faces: the bundle's gallery. Without
    --color the hair keeps its colour.

    Example: `ohlora render --count 1000 --color 0.5 --out portraits`
    """
    from dataclasses import asdict

    from ohlora.cli.execute import Setting, execute
    from ohlora.cli.render_device import DeviceWork
    from ohlora.errors import InvalidInputError
    from ohlora.render.gpu.devices import chosen_devices
    from ohlora.render.job import Look, OutputFormat, RenderJob, look_record
    from ohlora.render.job_file import faces_record, read_job_file
    from ohlora.render.plan import PortraitPlan
    from ohlora.render.renderer import Renderer

    if faces and count is not None:
        raise InvalidInputError("give either --count or --faces: --count N is short for --faces 0-(N-1)")
    refuse_idle_dye(color, ombre_height, grad_height)
    strengths = {"eyes": eyes, "mouth": mouth, "pose": pose}
    chosen = asked_looks(strengths, expression, expression_seed, looks, color, ombre_height, grad_height)
    own = options.own_directions(directions, space)
    devices = chosen_devices(device)
    if engines is not None and not devices:
        raise InvalidInputError(f"--engines {engines} holds engines of a GPU: give --device cuda too")
    if encoder != "cpu" and not devices:
        raise InvalidInputError(f"--encoder {encoder} encodes on a GPU: give --device cuda too")
    on_host = ("auto", "auto") if devices else (backend, precision)
    with Renderer(bundle, on_host[0], precision=on_host[1], threads=threads, directions=own) as renderer:
        if job is not None:
            if faces or count is not None or chosen != (Look(),):
                raise InvalidInputError(
                    "give either --job or --faces/--count/--color/--expression and the like, not both"
                )
            planned = read_job_file(job, renderer.label_size, renderer.bundle)
        else:
            planned = RenderJob(
                asked_faces(faces, count, renderer.label_size, renderer.bundle),
                chosen,
                OutputFormat.checked(format, quality, rounding),
                psi,
                truncation_layers,
            )
        producer: Any
        if devices:
            producer = DeviceWork(renderer, planned, devices, backend, precision, batch, engines, encoder)
            provenance = producer.provenance()
        else:
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
        setting = Setting(batch or BATCH, workers, restart, contact_sheet, json)
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


def asked_looks(
    strengths: dict[str, str],
    expression: list[str] | None,
    expression_seed: int | None,
    looks: str | None,
    color: str | None,
    ombre_height: str,
    grad_height: str,
) -> tuple[Look, ...]:
    """Strengths, words or a named set, and the dye. Raises InvalidInputError when there is more than one of them."""
    from ohlora.errors import InvalidInputError
    from ohlora.render.edits import named_looks
    from ohlora.render.job import make_looks

    moved = [f"--{name} {value}" for name, value in strengths.items() if value != STRENGTH]
    presets = options.make_presets(expression or [], expression_seed)
    if presets and moved:
        raise InvalidInputError(f"give either --expression or strengths, not both: leave out {' '.join(moved)}")
    if looks is not None:
        if presets or moved or color is not None:
            raise InvalidInputError(
                f"--looks {looks} says expressions and dyes itself: leave out --expression, --color and the like"
            )
        return named_looks(looks)
    return make_looks(
        presets or options.make_expressions(**strengths), options.make_ombres(color, ombre_height, grad_height)
    )


def refuse_idle_dye(color: str | None, ombre_height: str, grad_height: str) -> None:
    """Heights mean nothing without a colour: raises InvalidInputError rather than leave them out without a word."""
    from ohlora.errors import InvalidInputError

    for option, value, default in (("ombre-height", ombre_height, HEIGHT), ("grad-height", grad_height, GRAD_HEIGHT)):
        if color is None and value != default:
            raise InvalidInputError(f"--{option} {value} belongs to a dye: give --color too, such as --color 0.5")


def asked_faces(faces: list[str] | None, count: int | None, label_size: int, bundle: Bundle) -> Sequence[Face]:
    """--faces, or the first seeds, or for a newcomer who asks for none: the bundle's gallery, else a few seeds.

    Raises InvalidInputError for a count that no job can have.
    """
    import sys

    from ohlora.errors import InvalidInputError
    from ohlora.faces import MAX_FACES, load_faces

    if count is not None and not 1 <= count <= MAX_FACES:
        raise InvalidInputError(f"--count must be in [1, {MAX_FACES:,}], got {count}")
    if faces:
        return load_faces(faces, label_size, bundle)
    if count is not None:
        return load_faces([f"0-{count - 1}"], label_size, bundle)
    chosen = "gallery" if bundle.manifest.gallery else f"0-{SEEDS_SHOWN - 1}"
    print(f"no faces asked for: rendering --faces {chosen} (--count N for as many as you like)", file=sys.stderr)
    return load_faces([chosen], label_size, bundle)
