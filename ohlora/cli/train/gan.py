"""`ohlora train gan`: train a generator on rendered portraits or on a folder of pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from ohlora.cli.report import note
from ohlora.cli.train.machine import Loop
from ohlora.cli.train.recipe_options import Changes, RecipeFields

LOSSES = ("pixel", "perceptual", "generator", "discriminator", "penalty", "readout")
EVENTS = {
    "pictures": "pictures {done}/{count}",
    "mapping": "mapping: w gives the latents back with R2 {r2_mean:.4f} (worst {r2_min:.4f})",
    "taught": "mapping taught {features:.0f} numbers of a picture: R2 {r2_features:.3f} (latents {r2_latents:.4f}) on "
    "pictures it was not fitted on",
    "phase": "phase {phase}/{of} at {resolution} px from step {step}",
    "row": "step {step} ({percent:.0f} %): {losses}, {images_per_second:.1f} images/s",
}


def show(row: dict[str, Any]) -> None:
    """One event of the training loop, for people."""
    losses = ", ".join(f"{name} {row[name]:.4f}" for name in LOSSES if name in row)
    form = EVENTS.get(row["event"], EVENTS["row"])
    note(form.format(**row, losses=losses, percent=100 * row.get("progress", 0)))


def gan(
    *,
    changes: Annotated[Changes, RecipeFields("gan.config:GanConfig")],
    data: Annotated[
        list[Path] | None, Argument(help="Folders of pictures (recipe stylegan); none for portraits.")
    ] = None,
    recipe: Annotated[str, Option(help="portraits (the demo generator) or stylegan (any pictures).")] = "portraits",
    resolution: Annotated[int | None, Option(help="Train the phases up to this size.")] = None,
    kimg: Annotated[float | None, Option(min=0.001, help="Thousand pictures, all phases.")] = None,
    batch_size: Annotated[int | None, Option(min=1, help="Of all phases.")] = None,
    time_limit: Annotated[float | None, Option(min=0.01, help="Minutes of training, shared by the phases.")] = None,
    store: Annotated[Path | None, Option(help="Keep the rendered portraits here instead of OUT/pictures.")] = None,
    checkpoint_minutes: Annotated[float, Option(min=0.1)] = 5.0,
    sample_minutes: Annotated[float, Option(min=0.1)] = 5.0,
    measure: Annotated[
        int, Option(min=0, help="Pictures to measure the finished generator with, 0 = not at all.")
    ] = 2048,
    how: Loop = Loop(out=Path("runs/gan")),
) -> None:
    """Train a generator. Stopped runs (Ctrl-C too) resume from the same --out.

    Example: `ohlora train gan --recipe portraits --resolution 128 --time-limit 60 --out runs/demo`
    """
    from ohlora.training.gan.config import at_resolution, preset, scaled
    from ohlora.training.gan.loop import Watch, make_source, run

    config = preset(recipe, **changes)
    if resolution is not None:
        config = at_resolution(config, resolution)
    config = scaled(config, kimg, batch_size)
    source = make_source(config, data or [], store, timed=time_limit is not None)
    result = run(
        config,
        how.out,
        source,
        **how.arguments,
        time_limit=time_limit,
        watch=Watch(checkpoint_minutes=checkpoint_minutes, sample_minutes=sample_minutes),
        report=show,
    )
    lines = []
    if measure and not result["stopped"]:
        from ohlora.training.gan import quality

        figures = quality.measure(how.out, config, source, result, count=measure, report=note)
        result["figures"] = {k: v for k, v in asdict(figures).items() if v == v}
        result["memorised"] = figures.memorised
        lines.append(
            f"Frechet distance {figures.frechet:.3f} (floor {figures.frechet_floor:.3f}), coverage "
            f"{figures.coverage:.3f}, copies {100 * figures.copied:.1f} %"
            + (f", PSNR {figures.psnr:.2f} dB" if figures.psnr is not None else "")
        )
    length = f"{result['steps']} steps, {result['train_seconds']:.0f} s"
    how.trained(result, f"generator -> {result['generator']}", length, *lines)
