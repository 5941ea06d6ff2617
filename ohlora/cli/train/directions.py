"""`ohlora train directions | gallery | reader`: what a portrait-trained generator needs besides its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from ohlora.cli.report import Results, Told, note
from ohlora.cli.train.recipe_options import Changes, RecipeFields

MEASURED_FACES = 200
READER = Path("runs/reader.safetensors")


def directions(
    *,
    generator: Annotated[Path, Argument(help="Generator trained on portraits (.safetensors).")],
    samples: Annotated[int, Option(min=1, help="Random latents of the regression.")] = 20_000,
    reader: Annotated[
        Path | None, Option(help="Portrait reader of `train reader`: measure the directions with it.")
    ] = None,
    measure: Annotated[int | None, Option(min=3, help="Faces to measure on; needs --reader. Default 200.")] = None,
    how: Results = Results(out=Path("runs/directions")),
) -> None:
    """Directions for eyes, mouth and pose from the known parameters of a portrait-trained generator.

    Writes directions.safetensors, bound to this generator, and directions.json with what was found and measured.

    Example: `ohlora train directions runs/gan/generator.safetensors --out runs/directions`
    """
    from ohlora.base.atomic import make_folder, write_json
    from ohlora.errors import InvalidInputError

    if measure is not None and reader is None:
        raise InvalidInputError("--measure reads pictures: give --reader too (make one with `ohlora train reader`)")
    from ohlora.latents.directions import FILE_NAME, write_directions
    from ohlora.training import checkpoints
    from ohlora.training.directions.known_latents import find_directions
    from ohlora.training.directions.measure import from_generator
    from ohlora.training.directions.reader import load_reader
    from ohlora.training.nets.stylegan import Generator

    eye = None if reader is None else load_reader(reader)
    module = checkpoints.load_as(Generator, "stylegan", generator)
    found, report = find_directions(module, samples=samples)
    if eye is not None:
        report["measured"] = measured(from_generator(module, found), eye, measure or MEASURED_FACES)
    make_folder(how.out)
    write_directions(how.out / FILE_NAME, found)
    write_json(how.out / "directions.json", report, indent=2)
    how.tell({"out": str(how.out), **report}, *lines(report), f"directions -> {how.out / FILE_NAME}")


def measured(portray: Any, eye: Any, faces: int) -> dict[str, Any]:
    """The figures of `measure_directions`, with a progress bar."""
    from ohlora.cli.progress import Progress
    from ohlora.training.directions.measure import STRENGTHS, measure_directions

    runs = 1 + sum(s != 0 for strengths in STRENGTHS.values() for s in strengths)
    with Progress(faces * runs, "images") as progress:
        return measure_directions(portray, eye, seeds=faces, advance=progress.advance)


def lines(report: dict[str, Any]) -> list[str]:
    """The report for people: a line a property that was measured, a warning for one that w hardly knows."""
    said = [
        f"{name}: correlation {figures['correlation']:.3f}, per face {figures['correlation_per_face']:.3f}, "
        f"monotone for {figures['monotone']:.0%} of the faces"
        for name, figures in report.get("measured", {}).items()
        if name in report["norms"]
    ]
    return said + [
        f"warning: w knows little of {name} ({share:.0%} of it): this generator is not trained on portraits?"
        for name, share in report["readable_from_w"].items()
        if share < 0.5
    ]


def gallery(
    out: Annotated[Path, Option("--out", "-o", help="The CSV to write.")] = Path("runs/gallery.csv"),
    count: Annotated[int, Option("--count", "-n", min=1, help="Number of faces.")] = 24,
    candidates: Annotated[int, Option(min=1, help="Seeds to choose from.")] = 3000,
    first_seed: Annotated[int, Option(min=0, help="The first of them.")] = 0,
) -> None:
    """Choose named faces for a bundle: seeds whose portraits differ most from each other, without extremes.

    Example: `ohlora train gallery --count 24 --out runs/gallery.csv`
    """
    from ohlora.base.atomic import make_folder
    from ohlora.bundle.gallery import write_gallery
    from ohlora.training.directions.gallery import choose_seeds, make_gallery

    seeds = choose_seeds(count, candidates=candidates, first_seed=first_seed)
    entries = make_gallery(seeds)
    make_folder(out.absolute().parent)
    write_gallery(out, entries)
    typer.echo(", ".join(f"{entry.name} (seed {seed})" for entry, seed in zip(entries, seeds, strict=True)))
    typer.echo(f"gallery of {len(entries)} faces -> {out}")


def reader(
    *,
    changes: Annotated[Changes, RecipeFields("directions.recipes:ReaderConfig")],
    out: Annotated[Path, Option("--out", "-o", help="Weights to write (.safetensors).")] = READER,
    told: Told,
) -> None:
    """Train the small network that reads eyes, mouth, tilt and turn off a portrait (minutes on two cores).

    Example: `ohlora train reader --out runs/reader.safetensors`
    """
    from ohlora.base.atomic import make_folder, write_json
    from ohlora.errors import InvalidInputError

    if out.suffix != ".safetensors":
        raise InvalidInputError(f"--out must end in .safetensors, got {out}")
    from ohlora.training.directions.reader import save_reader, train_reader
    from ohlora.training.directions.recipes import ReaderConfig

    make_folder(out.absolute().parent)
    network, figures = train_reader(
        ReaderConfig(**changes),
        report=lambda row: note(f"epoch {row['epoch']}/{row['epochs']}: loss {row['loss']:.4f}"),
    )
    save_reader(out, network)
    write_json(out.with_suffix(".json"), figures, indent=2)
    shares = ", ".join(f"{name} {value:.3f}" for name, value in figures["r2"].items())
    line = f"reader -> {out}; R2 on {figures['held_out']} held-out portraits: {shares}"
    told.tell({"out": str(out), **figures}, line)
