"""Options that several commands share, so that they read and behave the same everywhere.

A command takes groups of them, dataclasses whose fields are options: `grouped` shows typer the fields.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, cast, get_type_hints, runtime_checkable

from typer import Option

from ohlora.base.text import shown
from ohlora.errors import InvalidInputError

if TYPE_CHECKING:
    from ohlora.base.values import Expression, Ombre
    from ohlora.latents.directions import Directions as DirectionSet
    from ohlora.render.job import OutputFormat
    from ohlora.render.renderer import Renderer

Out = Annotated[Path, Option("--out", "-o", help="Folder for the results; the same folder resumes.")]
BundleName = Annotated[str, Option("--bundle", "-b", help="Bundle folder, or 'demo' for the one that ships.")]
Backend = Annotated[str, Option("--backend", help="auto, openvino or onnxruntime.")]
Threads = Annotated[int | None, Option("--threads", min=1, help="Engine streams; default: usable cores.")]
Compat = Annotated[
    str | None, Option("--compat", help="documented: find and dye hair as the documented system (docs/documented.md).")
]
Workers = Annotated[int | None, Option("--workers", min=1, max=256, help="Encoding threads; default: cores.")]
Recursive = Annotated[bool, Option("--recursive", "-r", help="Also look into subfolders.")]
NoMark = Annotated[bool, Option("--no-mark", help="Leave out of the files that they are synthetic: docs/marks.md.")]
Restart = Annotated[bool, Option("--restart", help="Start over where --out holds another job.")]
Json = Annotated[bool, Option("--json", help="Print the summary as one JSON object.")]
ExpressionSeed = Annotated[
    int | None, Option(help="Draw the strengths of --expression from their ranges, not the middles.")
]
Noise = Annotated[str, Option(help="fixed, or the SEED of another draw of a photographic generator's frozen noise.")]
Space = Annotated[
    str | None, Option(help="Of --directions, where a folder holds several: z, w, mapping_split1 or mapping_split2.")
]


@dataclass(frozen=True)
class Dye:
    """The ombre dyes of a command that dyes hair."""

    color: Annotated[str | None, Option(help="Hue 0..1: 0 red, 0.1 orange, 0.5 sky blue, 0.9 pink. VALUES.")] = None
    ombre_height: Annotated[str, Option(help="Fraction of the hair that is dyed, from below. VALUES.")] = "0.7"
    grad_height: Annotated[str, Option(help="Fraction of the dyed part that fades in. VALUES.")] = "0.5"

    def ombres(self) -> list[Ombre] | None:
        """VALUES of the three, zipped -> ombres; None when no color is given. Raises InvalidInputError."""
        from ohlora.base.values import Ombre
        from ohlora.render.job import spread, zip_values

        if self.color is not None:
            color, height = spread("--color", self.color), spread("--ombre-height", self.ombre_height)
            values = {"color": color, "height": height, "grad_height": spread("--grad-height", self.grad_height)}
            return [Ombre(**row) for row in zip_values("ombre", values)]
        for field in dataclasses.fields(self)[1:]:
            if (value := getattr(self, field.name)) != field.default:
                option = f"--{field.name.replace('_', '-')}"
                raise InvalidInputError(f"{option} {value} has no effect without --color: give one, such as 0.5")
        return None


@dataclass(frozen=True)
class Images:
    """How image files are encoded."""

    format: Annotated[str, Option("--format", "-f", help="jpeg, png or webp.")] = "jpeg"
    quality: Annotated[int, Option(help="Of JPEG and WebP, 1 to 100.")] = 95
    rounding: Annotated[str, Option(help="truncate (as documented for frames) or nearest.")] = "truncate"
    no_mark: NoMark = False

    def output(self) -> OutputFormat:
        """Raises InvalidInputError."""
        from ohlora.render.job import OutputFormat

        return OutputFormat.checked(self.format, self.quality, self.rounding, not self.no_mark)


@dataclass(frozen=True)
class Engines:
    """The bundle, and what its networks run on."""

    bundle: BundleName = "demo"
    backend: Backend = "auto"
    precision: Annotated[str, Option(help="fp32, bf16 (faster where the CPU has it), or auto: the bundle's own.")] = (
        "auto"
    )
    threads: Threads = None
    compat: Compat = None

    def renderer(self, directions: DirectionSet | None = None, noise: str = "fixed") -> Renderer:
        """noise: of portraits. Raises InvalidInputError, BundleError.

        What it does not know of this text it refuses when an engine is opened: EngineError.
        """
        from ohlora.render.renderer import Renderer

        backend, precision, compat = cast(Any, self.backend), cast(Any, self.precision), cast(Any, self.compat)
        seed = noise_seed(noise)
        return Renderer(self.bundle, backend, precision, self.threads, directions=directions, noise=seed, compat=compat)


def noise_seed(text: str) -> int | Literal["fixed"]:
    """What --noise says. Raises InvalidInputError."""
    if text == "fixed":
        return "fixed"
    if not re.fullmatch("[0-9]{1,19}", text):
        raise InvalidInputError(f"--noise '{shown(text)}' is not understood: give fixed, or a seed such as 7")
    return int(text)


@dataclass(frozen=True)
class Directions:
    """Directions in place of the bundle's own."""

    directions: Annotated[
        Path | None, Option(help="Folder of published direction tables, instead of the bundle's.")
    ] = None
    space: Space = None

    def read(self) -> DirectionSet | None:
        """None for the bundle's own. Raises InvalidInputError."""
        from ohlora.latents.directions import read_directions

        if self.directions is None and self.space is not None:
            raise InvalidInputError(
                f"--space {self.space} chooses among the tables of a folder: give --directions FOLDER too"
            )
        return None if self.directions is None else read_directions(self.directions, self.space)


Gather = Callable[[dict[str, Any]], Any]  # takes its own values out of a command's


class Group(Protocol):
    """Marks a parameter of a command (`Annotated[T, mark]`) that stands for several options."""

    def parameters(self) -> tuple[list[inspect.Parameter], Gather]:
        """The options, and what the command is given of their values."""


@runtime_checkable
class Interruptible(Protocol):
    """A group that says what Ctrl-C left, where the command has not."""

    def interrupted(self) -> None: ...


def option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    missing = inspect.Parameter.empty if default is dataclasses.MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=missing, annotation=annotation)


def fields_of(group: type[Any], defaults: object = None) -> tuple[list[inspect.Parameter], Gather]:
    """An option for each field of a dataclass, and how one is made of their values. defaults: an instance, or none."""
    types, fields = get_type_hints(group, include_extras=True), dataclasses.fields(group)
    made = [option(field.name, types[field.name], getattr(defaults, field.name, field.default)) for field in fields]
    return made, lambda values: group(**{field.name: values.pop(field.name) for field in fields})


def grouped(command: Callable[..., None], before: Callable[[], object] = lambda: None) -> Callable[..., None]:
    """A command whose parameters may be groups: typer sees their fields, the command gets the groups.

    A group is a dataclass, whose fields have the defaults of the parameter's default, or a mark (`Group`). before: is
    called first.
    """
    types = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Gather] = {}
    for parameter in inspect.signature(command).parameters.values():
        kind = types[parameter.name]
        marks = [mark for mark in getattr(kind, "__metadata__", ()) if hasattr(mark, "parameters")]
        if marks or dataclasses.is_dataclass(kind):
            found = marks[0].parameters() if marks else fields_of(cast("type[Any]", kind), parameter.default)
            groups[parameter.name] = found[1]
            parameters += found[0]
        else:
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        before()
        made = {name: gather(values) for name, gather in groups.items()}
        try:
            command(**values, **made)
        except KeyboardInterrupt:
            for group in made.values():
                if isinstance(group, Interruptible):
                    group.interrupted()
            raise

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__dict__["__wrapped__"]
    return run


def expressions_in_words(texts: list[str], seed: int | None) -> list[Expression]:
    """--expression, repeated -> expressions. Text i is drawn by (seed, i) alone; the middles without a seed."""
    from ohlora.latents.expression_words import preset_expression

    if seed is not None and not texts:
        raise InvalidInputError(
            f"--expression-seed {seed} draws words: give --expression 'eyes wide, mouth normal, pose none' too"
        )
    return [preset_expression(text, seed, number) for number, text in enumerate(texts)]
