"""`ohlora animate`: one moving picture per face or photograph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ohlora.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ohlora.render.job import Look
    from ohlora.renderer import Renderer


def animate(
    photos: Annotated[
        list[str] | None, typer.Argument(help="Pictures to animate; 'example' is a portrait that ships.")
    ] = None,
    faces: Annotated[list[str] | None, typer.Option("--faces", help="Faces to generate, as for `render`.")] = None,
    out: options.Out = Path("out"),
    curve: Annotated[str, typer.Option("--curve", help="gif40, window80 or product360 (documented curves).")] = "gif40",
    color: options.Color = None,
    ombre_height: options.Height = "0.7",
    grad_height: options.GradHeight = "0.5",
    format: Annotated[str, typer.Option("--format", "-f", help="gif, webp or mp4.")] = "gif",
    fps: Annotated[float | None, typer.Option("--fps", help="Frames per second; default: the curve's.")] = None,
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="Of WebP and MP4.")] = 90,
    still: Annotated[bool, typer.Option("--still", help="Move the dye only, keep the face's expression.")] = False,
    bundle: options.BundleName = "demo",
    directions: options.Directions = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "f32",
    threads: options.Threads = None,
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Animate dye and expression along a documented curve, or the dye along --color FIRST:LAST:COUNT.

    Example: `ohlora animate example --color 0:1:60 --format mp4 --out moving`
    """
    import sys

    from ohlora.cli.render import refuse_idle_dye
    from ohlora.directions import read_directions
    from ohlora.errors import BadRequest
    from ohlora.faces import load_faces
    from ohlora.images import list_images
    from ohlora.render.curves import CURVES, curve_looks
    from ohlora.render.job import Look
    from ohlora.render.job_file import faces_record
    from ohlora.render.plan import output_names
    from ohlora.renderer import Renderer

    if photos and faces:
        raise BadRequest("give pictures or --faces, not both")
    refuse_idle_dye(color, ombre_height, grad_height)
    own = None if directions is None else read_directions(directions)
    with Renderer(bundle, backend, precision=precision, threads=threads, directions=own) as renderer:
        moves = bool(faces) and not still and color is None
        if moves and renderer.directions is None:
            raise BadRequest(
                f"the expression cannot move: bundle '{renderer.bundle.name}' has no directions. "
                "Give --directions FOLDER, or --still to move the dye only"
            )
        if color is None:
            looks = curve_looks(curve, expressions=moves)
        else:
            looks = [Look(ombre=ombre) for ombre in options.make_ombres(color, ombre_height, grad_height) or []]
        subjects: list[tuple[str, Any]]
        if faces:
            listed = load_faces(faces, renderer.label_size, renderer.bundle)
            if moves and renderer.directions is not None:
                renderer.directions.check_all(listed)
            subjects = [(face.name, face) for face in listed]
            identity: list[Any] = faces_record(listed)
        else:
            from ohlora.cli.recolor import example_path, fingerprint

            roots = [example_path() if photo == "example" else Path(photo) for photo in photos or ["example"]]
            paths = list_images(roots)
            subjects = list(zip(output_names(paths, roots), paths, strict=True))
            identity = [[str(path.absolute()), *fingerprint(path)] for path in paths]
        speed = fps if fps is not None else (CURVES[curve].fps if color is None else 20.0)
        failed = write_all(
            renderer,
            subjects,
            looks,
            out,
            format,
            speed,
            quality,
            restart,
            identity,
            sys.stderr.isatty() and not json,
        )
    report(out, len(subjects), failed, json)


def write_all(
    renderer: Renderer,
    subjects: list[tuple[str, Any]],
    looks: list[Look],
    out: Path,
    format: str,
    fps: float,
    quality: int,
    restart: bool,
    identity: list[Any],
    show: bool,
) -> list[str]:
    """One animation after the other; finished ones are kept on a resume. Returns the messages of failed ones."""
    import hashlib

    from ohlora.atomic import make_folder, remove_leftovers
    from ohlora.cli.execute import open_journal
    from ohlora.cli.progress import Progress
    from ohlora.errors import ImageError
    from ohlora.render.animation import write_animation
    from ohlora.render.job import look_record

    provenance = renderer.provenance(generator=bool(subjects) and not isinstance(subjects[0][1], Path))
    request = {
        "command": "animate",
        "subjects": identity,
        "looks": [look_record(look) for look in looks],
        "format": [format, fps, quality],
        "directions": None if renderer.directions is None else renderer.directions.sha256,
        **provenance,
    }
    with open_journal(out, request, restart) as journal:
        remove_leftovers(out)
        pending = list(journal.pending(len(subjects)))
        with Progress(len(pending), "animations", quiet=not show) as progress:
            for item in pending:
                name, subject = subjects[item]
                path = out / f"{name}.{format}"
                make_folder(path.parent)
                try:
                    count = write_animation(
                        path, frames(renderer, subject, looks), fps=fps, format=format, quality=quality
                    )
                except ImageError as error:
                    journal.record_failure(item, str(error))
                else:
                    data = path.read_bytes()
                    digest = hashlib.sha256(data).hexdigest()
                    row: dict[str, Any] = {
                        "file_name": path.relative_to(out).as_posix(),
                        "source": str(getattr(subject, "name", name)),
                    }
                    row |= {"frames": count, "fps": fps, "bytes": len(data), "sha256": digest} | provenance
                    journal.record(item, row)
                progress.advance(1)
        failed = list(journal.failed.values())
        journal.finish(len(subjects), partial=bool(failed))
    return failed


def frames(renderer: Renderer, subject: Any, looks: list[Look]) -> Iterator[Any]:
    """uint8 RGB frames of one face or picture file; hair is found once per distinct picture."""
    from ohlora.images import read_image
    from ohlora.render.job import RenderJob
    from ohlora.render.producers import pictures_with_hair
    from ohlora.render.sinks import dye

    if isinstance(subject, Path):
        picture = pictures_with_hair([read_image(subject)], renderer.hair_engine, [{}])[0]
        for look in looks:
            yield dye(picture, look.ombre)
        return
    # One stream per frame group of equal expression would reorder frames; a job of one face keeps their order.
    for rendered in renderer.stream(RenderJob([subject], tuple(looks))):
        yield rendered.image


def report(out: Path, total: int, failed: list[str], as_json: bool) -> None:
    import json
    import sys

    if as_json:
        typer.echo(json.dumps({"out": str(out), "animations": total - len(failed), "failures": failed}))
    else:
        for message in failed:
            print(f"failed: {message}", file=sys.stderr)
        typer.echo(f"{total - len(failed)} animations -> {out}")
    raise typer.Exit(1 if failed else 0)
