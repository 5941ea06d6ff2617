"""`ohlora animate`: one moving picture per face or photograph."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from ohlora.cli import options
from ohlora.cli.report import Run, note
from ohlora.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ohlora.base.values import Expression, Face
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


@dataclass(frozen=True)
class Movement:
    """What moves."""

    curve: Annotated[str | None, Option(help="gif40 (default), sweep60, live ...: see --list-curves.")] = None
    undyed: Annotated[bool, Option("--undyed", help="Move the expression only, keep the hair's color.")] = False
    still: Annotated[bool, Option("--still", help="Move the dye only, keep the face's expression.")] = False
    frames: Annotated[int | None, Option(help="Length of a live curve.")] = None
    seed: Annotated[int | None, Option(help="Of a live curve: equal seeds, equal frames.")] = None
    expression: Annotated[
        str | None, Option(help="Shown in the middle of a live curve: 'eyes wide, mouth normal, pose none'.")
    ] = None
    expression_seed: options.ExpressionSeed = None

    def curve_name(self, colored: bool) -> str | None:
        """None: no curve, the dye alone goes along --color."""
        return self.curve or (None if colored else DEFAULT_CURVE)

    @property
    def target(self) -> Expression | None:
        """What --expression says. Raises InvalidInputError."""
        texts = [] if self.expression is None else [self.expression]
        return next(iter(options.expressions_in_words(texts, self.expression_seed)), None)

    def record(self, colored: bool) -> dict[str, Any]:
        """For the metadata; the expression in numbers."""
        from ohlora.render.curves import find_curve

        name = self.curve_name(colored)
        if name is None or find_curve(name).live is None:
            return {"curve": name}
        return {"curve": name, "seed": self.seed or 0, "expression": self.target and asdict(self.target)}

    def looks(self, dye: options.Dye, *, faces: bool) -> list[Look]:
        """One per frame. faces: of faces that can move, not of pictures.

        Raises InvalidInputError for options that have no effect together.
        """
        from ohlora.render.curves import curve_looks, find_curve
        from ohlora.render.job import Look

        ombres, still, target = dye.ombres(), self.still or not faces, self.target
        name = self.curve_name(ombres is not None)
        live = {"--frames": self.frames, "--seed": self.seed, "--expression": self.expression}
        idle = [f"{option} {value}" for option, value in live.items() if value is not None]
        if ombres is not None and self.undyed:
            raise InvalidInputError("give either --color or --undyed, not both")
        if name is None:
            if idle:
                raise InvalidInputError(f"{idle[0]} belongs to a live curve: give --curve live too")
            return [Look(ombre=ombre) for ombre in ombres or []]
        curve = find_curve(name)
        if curve.live is None and idle:
            raise InvalidInputError(f"{idle[0]} belongs to a live curve, '{name}' is fixed: give --curve live")
        if still and target is not None:
            raise InvalidInputError("--expression needs a face that moves: give --faces, and no --still")
        dyed = not self.undyed and ombres is None and curve.ombre is not None
        if not dyed and len(ombres or []) < 2 and (still or not curve.moves_face):
            raise InvalidInputError(
                f"nothing moves in curve '{name}': pictures and --still keep the expression; --undyed, one --color and "
                "curves without a dye keep the hair. Give --faces, more colors or another --curve (--list-curves)"
            )
        looks = curve_looks(name, not still, dyed=dyed, frames=self.frames, seed=self.seed or 0, target=target)
        if ombres is None:
            return looks
        if len(ombres) not in (1, len(looks)):
            raise InvalidInputError(
                f"--color has {len(ombres)} values, curve '{name}' {len(looks)} frames: give one value or "
                f"--color FIRST:LAST:{len(looks)}"
            )
        return [replace(look, ombre=ombres[i if len(ombres) > 1 else 0]) for i, look in enumerate(looks)]


@options.grouped
def animate(
    *,
    photos: Annotated[list[str] | None, Argument(help="Images to animate; 'example' is a portrait that ships.")] = None,
    faces: Annotated[list[str] | None, Option(help="Faces to generate, as for `render`.")] = None,
    movement: Movement,
    dye: options.Dye,
    format: Annotated[str, Option("--format", "-f", help="gif, webp or mp4.")] = "gif",
    fps: Annotated[float | None, Option(help="Frames per second; default: the curve's.")] = None,
    quality: Annotated[int, Option(help="Of WebP and MP4, 1 to 100.")] = 90,
    no_mark: options.NoMark = False,
    own: options.Directions,
    noise: options.Noise = "fixed",
    engines: options.Engines,
    run: Run,
    _curves: Annotated[
        bool, Option("--list-curves", callback=list_curves, is_eager=True, help="List the curves and exit.")
    ] = False,
) -> None:
    """Animate dye and expression along a documented curve, or the dye along --color FIRST:LAST:COUNT.

    With --curve and --color, the curve moves the expression alone; --color has one value, or one for each frame.
    Without pictures or faces: 'example', or the first face of the gallery when --curve names one that moves faces.

    Example: `ohlora animate example --color 0:1:60 --format mp4 --out moving`
    """
    from ohlora.cli.execute import run_job
    from ohlora.cli.sources import source_paths, without
    from ohlora.io.animation import AnimationFormat
    from ohlora.io.images import list_images
    from ohlora.render.curves import find_curve
    from ohlora.render.jobs import animation_job

    if photos and faces:
        raise InvalidInputError("give pictures or --faces, not both")
    asked = movement.curve
    one_face = not photos and not faces and not movement.still and asked is not None and find_curve(asked).moves_face
    looks = movement.looks(dye, faces=bool(faces) or one_face)
    colored = dye.color is not None
    name = movement.curve_name(colored)
    default_fps = find_curve(name).fps if name else DYE_FPS
    file = AnimationFormat(format, default_fps if fps is None else fps, quality)
    with engines.renderer(own.read(), noise) as renderer:
        moves = any(not look.expression.neutral for look in looks)
        if moves and renderer.directions is None:
            raise InvalidInputError(
                f"the expression cannot move: bundle '{renderer.bundle.name}' has no directions. "
                "Give --directions FOLDER, or --still to move the dye only"
            )
        people = _faces(renderer, faces, one_face) if faces or one_face else None
        if moves and people and renderer.directions is not None:
            renderer.directions.check_all(people)
        roots = source_paths(photos)
        paths = without(list_images(roots), run.out, roots) if people is None else []
        record = movement.record(colored)
        mark = not no_mark
        run_job(animation_job(renderer, looks, file, record, faces=people, photos=paths, roots=roots, mark=mark), run)


def _faces(renderer: Renderer, specs: list[str] | None, one_face: bool) -> Sequence[Face]:
    """Those asked for, or the first of the gallery."""

    from ohlora.faces import load_faces

    default = ["gallery" if renderer.bundle.manifest.gallery else "0"]
    faces = load_faces(specs or default, renderer.label_size, renderer.bundle)
    if one_face:
        faces = faces[:1]
        note(f"no faces asked for: animating '{faces[0].name}' (--faces for others)")
    return faces
