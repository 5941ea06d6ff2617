"""`ohlora train gan`: train a generator on rendered portraits or on a folder of pictures."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ohlora.cli import options


def show(row: dict[str, Any]) -> None:
    """One event of the training loop, for people."""
    event = row["event"]
    if event == "pictures":
        text = f"pictures {row['done']}/{row['count']}"
    elif event == "mapping":
        text = f"mapping: w gives the latents back with R2 {row['r2_mean']:.4f} (worst {row['r2_min']:.4f})"
    elif event == "taught":
        text = (
            f"mapping taught {row['features']:.0f} numbers of a picture: R2 {row['r2_features']:.3f} "
            f"(latents {row['r2_latents']:.4f}) on pictures it was not fitted on"
        )
    elif event == "phase":
        text = f"phase {row['phase']}/{row['of']} at {row['resolution']} px from step {row['step']}"
    else:
        names = ("pixel", "perceptual", "generator", "discriminator", "penalty", "readout")
        losses = ", ".join(f"{name} {row[name]:.4f}" for name in names if name in row)
        text = f"step {row['step']} ({100 * row['progress']:.0f} %): {losses}, {row['images_per_second']:.1f} images/s"
    typer.echo(text, err=True)


def gan(
    data: Annotated[
        list[Path] | None, typer.Argument(help="Folders of pictures (recipe stylegan); none for portraits.")
    ] = None,
    out: options.Out = Path("runs/gan"),
    recipe: Annotated[
        str, typer.Option("--recipe", help="portraits (the demo generator) or stylegan (any pictures).")
    ] = "portraits",
    resolution: Annotated[int | None, typer.Option("--resolution", help="Train the phases up to this size.")] = None,
    phases: Annotated[
        str | None, typer.Option("--phases", help="RESOLUTION:KIMG[:NAME=NUMBER...],... instead of the recipe's.")
    ] = None,
    images: Annotated[int | None, typer.Option("--images", min=2, help="Portraits to render and train on.")] = None,
    kimg: Annotated[float | None, typer.Option("--kimg", min=0.001, help="Thousand pictures, all phases.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1)] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", min=0.01, help="Minutes of training, shared by the phases.")
    ] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="fp32 or bf16.")] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Fused loops; on a CPU this needs g++.")
    ] = None,
    augment: Annotated[
        str | None, typer.Option("--augment", help="color, translation, cutout, flip: comma-separated.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Keep the rendered portraits here instead of OUT/pictures.")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option("--start-from", help="Go on from a generator's .safetensors.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0)] = None,
    accelerator: Annotated[str, typer.Option("--accelerator", help="auto, cpu or cuda.")] = "auto",
    checkpoint_minutes: Annotated[float, typer.Option("--checkpoint-minutes", min=0.1)] = 5.0,
    sample_minutes: Annotated[float, typer.Option("--sample-minutes", min=0.1)] = 5.0,
    measure: Annotated[
        int, typer.Option("--measure", min=0, help="Pictures to measure the finished generator with, 0 = not at all.")
    ] = 2048,
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Train a generator. Stopped runs (Ctrl-C too) resume from the same --out.

    Example: `ohlora train gan --recipe portraits --resolution 128 --time-limit 60 --out runs/demo`
    """
    import json as json_module

    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.training.gan.config import at_resolution, parse_phases, preset, scaled
    from ohlora.training.gan.loop import Watch, make_source, run

    changes: dict[str, Any] = {
        "images": images,
        "precision": precision,
        "compile": compile,
        "augment": None if augment is None else tuple(filter(None, augment.split(","))),
        "start_from": None if start_from is None else str(start_from),
        "seed": seed,
    }
    config = preset(recipe, **{key: value for key, value in changes.items() if value is not None})
    if phases is not None:
        config = replace(config, phases=parse_phases(phases))
    if resolution is not None:
        config = at_resolution(config, resolution)
    config = scaled(config, kimg, batch_size)
    source = make_source(config, data or [], store)
    watch = Watch(checkpoint_minutes=checkpoint_minutes, sample_minutes=sample_minutes)
    result = run(
        config,
        out,
        source,
        resume=not restart,
        time_limit=time_limit,
        accelerator=accelerator,
        watch=watch,
        report=show,
    )
    figures = None
    if measure and not result["stopped"]:
        from ohlora.training.gan import quality

        figures = quality.measure(out, config, source, result, count=measure, report=lambda t: typer.echo(t, err=True))
        result["figures"] = {k: v for k, v in asdict(figures).items() if v == v}
        result["memorised"] = figures.memorised
    if json:
        typer.echo(json_module.dumps(result))
    else:
        state = "stopped; the same command resumes" if result["stopped"] else "done"
        typer.echo(
            f"generator -> {result['generator']} ({result['steps']} steps, {result['train_seconds']:.0f} s; {state})"
        )
        if figures is not None:
            typer.echo(
                f"Frechet distance {figures.frechet:.3f} (floor {figures.frechet_floor:.3f}), coverage "
                f"{figures.coverage:.3f}, copies {100 * figures.copied:.1f} %"
                + (f", PSNR {figures.psnr:.2f} dB" if figures.psnr is not None else "")
            )
    if result["stopped"]:
        raise KeyboardInterrupt
