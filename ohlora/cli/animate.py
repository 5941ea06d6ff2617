"""`ohlora animate`: one moving picture per face or photograph."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ohlora.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ohlora.base.values import Expression, Ombre
    from ohlora.render.job import Look
    from ohlora.render.renderer import Renderer

DEFAULT_CURVE = "gif40"
DYE_FPS = 20.0  # of an animation along --color alone


def list_curves(value: bool) -> None:
    """Callback of --list-curves: name, length and content of every curve."""
    if value:
        from ohlora.render.curves import CURVES

        for name, curve in CURVES.items():
            typer.echo(f"{name:<11} {curve.frames:>4} frames {curve.fps:>3g} fps  {curve.about}")
        raise typer.Exit


def animate(
    photos: Annotated[
        list[str] | None, typer.Argument(help="Pictures to animate; 'example' is a portrait that ships.")
    ] = None,
    faces: Annotated[list[str] | None, typer.Option("--faces", help="Faces to generate, as for `render`.")] = None,
    out: options.Out = Path("out"),
    curve: Annotated[
        str | None, typer.Option("--curve", help="gif40 (default), sweep60, live ...: see --list-curves.")
    ] = None,
    color: options.Color = None,
    ombre_height: options.Height = "0.7",
    grad_height: options.GradHeight = "0.5",
    undyed: Annotated[bool, typer.Option("--undyed", help="Move the expression only, keep the hair's colour.")] = False,
    still: Annotated[bool, typer.Option("--still", help="Move the dye only, keep the face's expression.")] = False,
    frames: Annotated[int | None, typer.Option("--frames", help="Length of a live curve.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of a live curve: equal seeds, equal frames.")] = None,
    expression: Annotated[
        str | None,
        typer.Option("--expression", help="Shown in the middle of a live curve: 'eyes wide, mouth normal, pose none'."),
    ] = None,
    expression_seed: options.ExpressionSeed = None,
    format: Annotated[str, typer.Option("--format", "-f", help="gif, webp or mp4.")] = "gif",
    fps: Annotated[float | None, typer.Option("--fps", help="Frames per second; default: the curve's.")] = None,
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="Of WebP and MP4.")] = 90,
    bundle: options.BundleName = "demo",
    directions: options.Directions = None,
    space: options.Space = None,
    backend: options.Backend = "auto",
    precision: options.Precision = "auto",
    threads: options.Threads = None,
    restart: options.Restart = False,
    json: options.Json = False,
    _curves: Annotated[
        bool, typer.Option("--list-curves", callback=list_curves, is_eager=True, help="List the curves and exit.")
    ] = False,
) -> None:
    """Animate dye and expression along a documented curve, or the dye along --color FIRST:LAST:COUNT.

    With --curve and --color, the curve moves the expression alone; --color has one value, or one for each frame.
    Without pictures or faces: 'example', or the first face of the gallery when --curve names one that moves faces.

    Example: `ohlora animate example --color 0:1:60 --format mp4 --out moving`
    """
    import sys

    from ohlora.cli.render import refuse_idle_dye
    from ohlora.errors import InvalidInputError
    from ohlora.faces import load_faces
    from ohlora.io.images import list_images
    from ohlora.render.curves import find_curve
    from ohlora.render.job_file import faces_record
    from ohlora.render.plan import output_names
    from ohlora.render.renderer import Renderer

    if photos and faces:
        raise InvalidInputError("give pictures or --faces, not both")
    refuse_idle_dye(color, ombre_height, grad_height)
    own = options.own_directions(directions, space)
    one_face = not photos and not faces and not still and curve is not None and find_curve(curve).moves_face
    request = Movement(curve, undyed, still or not (faces or one_face), frames, seed, expression, expression_seed)
    looks = request.looks(options.make_ombres(color, ombre_height, grad_height))
    moves = any(not look.expression.neutral for look in looks)
    with Renderer(bundle, backend, precision=precision, threads=threads, directions=own) as renderer:
        if moves and renderer.directions is None:
            raise InvalidInputError(
                f"the expression cannot move: bundle '{renderer.bundle.name}' has no directions. "
                "Give --directions FOLDER, or --still to move the dye only"
            )
        subjects: list[tuple[str, Any]]
        if faces or one_face:
            specs = faces or ["gallery" if renderer.bundle.manifest.gallery else "0"]
            listed = load_faces(specs, renderer.label_size, renderer.bundle)
            if one_face:
                listed = listed[:1]
                print(f"no faces asked for: animating '{listed[0].name}' (--faces for others)", file=sys.stderr)
            if moves and renderer.directions is not None:
                renderer.directions.check_all(listed)
            subjects = [(face.name, face) for face in listed]
            identity: list[Any] = faces_record(listed)
        else:
            from ohlora.cli.sources import example_path, fingerprint

            roots = [example_path() if photo == "example" else Path(photo) for photo in photos or ["example"]]
            paths = list_images(roots)
            subjects = list(zip(output_names(paths, roots), paths, strict=True))
            identity = [[str(path.absolute()), *fingerprint(path)] for path in paths]
        named = request.curve_name(color is not None)
        speed = fps if fps is not None else (find_curve(named).fps if named else DYE_FPS)
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
            request.record(color is not None),
            sys.stderr.isatty() and not json,
        )
    report(out, len(subjects), failed, json)


@dataclass(frozen=True)
class Movement:
    """The options that say what moves. still: no expression, asked for or because pictures have none."""

    curve: str | None
    undyed: bool
    still: bool
    frames: int | None
    seed: int | None
    expression: str | None
    expression_seed: int | None

    def curve_name(self, colored: bool) -> str | None:
        """None: no curve, the dye alone goes along --color."""
        return self.curve or (None if colored else DEFAULT_CURVE)

    @property
    def target(self) -> Expression | None:
        """What --expression says. Raises InvalidInputError."""
        presets = options.make_presets([] if self.expression is None else [self.expression], self.expression_seed)
        return presets[0] if presets else None

    def record(self, colored: bool) -> dict[str, Any]:
        """For the metadata; the expression in numbers."""
        from ohlora.render.curves import find_curve

        name = self.curve_name(colored)
        if name is None or find_curve(name).live is None:
            return {"curve": name}
        return {"curve": name, "seed": self.seed or 0, "expression": self.target and asdict(self.target)}

    def looks(self, ombres: list[Ombre] | None) -> list[Look]:
        """One per frame. ombres: those of --color.

        Raises InvalidInputError for options that have no effect together.
        """
        from ohlora.errors import InvalidInputError
        from ohlora.render.curves import curve_looks, find_curve
        from ohlora.render.job import Look

        name = self.curve_name(ombres is not None)
        live = {"--frames": self.frames, "--seed": self.seed, "--expression": self.expression}
        given = [f"{option} {value}" for option, value in live.items() if value is not None]
        target = self.target
        if ombres is not None and self.undyed:
            raise InvalidInputError("give either --color or --undyed, not both")
        if name is None:
            if given:
                raise InvalidInputError(f"{given[0]} belongs to a live curve: give --curve live too")
            return [Look(ombre=ombre) for ombre in ombres or []]
        curve = find_curve(name)
        if curve.live is None and given:
            raise InvalidInputError(f"{given[0]} belongs to a live curve, '{name}' is fixed: give --curve live")
        if self.still and target is not None:
            raise InvalidInputError("--expression needs a face that moves: give --faces, and no --still")
        dyed = not self.undyed and ombres is None and curve.ombre is not None
        if not dyed and len(ombres or []) < 2 and (self.still or not curve.moves_face):
            raise InvalidInputError(
                f"nothing moves in curve '{name}': pictures and --still keep the expression; --undyed, one --color and "
                "curves without a dye keep the hair. Give --faces, more colours or another --curve (--list-curves)"
            )
        looks = curve_looks(
            name,
            expressions=not self.still,
            dyed=dyed,
            frames=self.frames,
            seed=self.seed or 0,
            target=target,
        )
        if ombres is None:
            return looks
        if len(ombres) not in (1, len(looks)):
            raise InvalidInputError(
                f"--color has {len(ombres)} values, curve '{name}' {len(looks)} frames: give one value or "
                f"--color FIRST:LAST:{len(looks)}"
            )
        return [replace(look, ombre=ombres[i if len(ombres) > 1 else 0]) for i, look in enumerate(looks)]


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
    movement: dict[str, Any],
    show: bool,
) -> list[str]:
    """One animation after the other; finished ones are kept on a resume. Returns the messages of failed ones.

    movement: what the looks come from, for the metadata.
    """
    import hashlib

    from ohlora.base.atomic import make_folder, remove_leftovers
    from ohlora.cli.execute import open_journal
    from ohlora.cli.progress import Progress
    from ohlora.errors import ImageError
    from ohlora.io.animation import write_animation
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
                        path, moving_frames(renderer, subject, looks), fps=fps, format=format, quality=quality
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
                    row |= {"frames": count, "fps": fps, **movement, "bytes": len(data), "sha256": digest} | provenance
                    journal.record(item, row)
                progress.advance(1)
        failed = list(journal.failed.values())
        journal.finish(len(subjects), partial=bool(failed))
    return failed


def moving_frames(renderer: Renderer, subject: Any, looks: list[Look]) -> Iterator[Any]:
    """uint8 RGB frames of one face or picture file; hair is found once per distinct picture."""
    from ohlora.io.images import read_image
    from ohlora.render.moving_portrait import MovingPortrait
    from ohlora.render.sinks import dye
    from ohlora.render.sources import pictures_with_hair

    if isinstance(subject, Path):
        picture = pictures_with_hair([read_image(subject)], renderer.hair_engine, [{}])[0]
        for look in looks:
            yield dye(picture, look.ombre)
        return
    dyed = any(look.ombre is not None for look in looks)
    moves = any(not look.expression.neutral for look in looks)
    yield from MovingPortrait(renderer, subject, dyed=dyed, moves=moves).frames(looks)


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
