"""`ohlora train compare-losses`: the documented table of distillation losses, ours beside the published one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ohlora.cli import options


def compare_losses(
    data: Annotated[
        list[Path],
        typer.Option("--data", help="Folder of pictures with hair_soft/NAME.png teacher maps. Repeatable."),
    ],
    out: options.Out = Path("runs/losses"),
    losses: Annotated[str, typer.Option("--losses", help="Comma-separated.")] = "mse,soft_bce,kl",
    recipe: Annotated[
        str, typer.Option("--recipe", help="Of `train distill`: documented or few-faces.")
    ] = "documented",
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Instead of the recipe's phases: so many at --size.")
    ] = None,
    size: Annotated[int, typer.Option("--size", min=64, help="Pixels of the training pictures, with --epochs.")] = 224,
    encoder: Annotated[str | None, typer.Option("--encoder", help="Any timm model with five feature levels.")] = None,
    imagenet: Annotated[
        bool | None, typer.Option("--imagenet/--no-imagenet", help="Start from ImageNet weights.")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option("--start-from", help="Start all from a student's .safetensors.")
    ] = None,
    portraits: Annotated[
        str | None,
        typer.Option("--portraits", help="Mix in painted portraits: how many, or a folder of `train portraits`."),
    ] = None,
    held_out_portraits: Annotated[
        int, typer.Option("--held-out-portraits", min=1, help="Portraits to measure on, with --portraits.")
    ] = 40,
    holdout: Annotated[float | None, typer.Option("--holdout", min=0, max=0.9, help="Share of people.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", min=0)] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=2)] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    shown: Annotated[int, typer.Option("--shown", min=0, help="Test pictures to draw overlays of.")] = 4,
    accelerator: Annotated[str, typer.Option("--accelerator", help="auto, cpu or cuda.")] = "auto",
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Train one student per loss under one recipe, start and split; compare. Stopped comparisons resume.

    Example: `ohlora train compare-losses --data faces --recipe few-faces --size 128 --epochs 30 --out runs/losses`
    """
    import json as json_module
    from dataclasses import replace

    from ohlora.cli.train.portraits import show
    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.training.students.compare_losses import compare, table_rows, verdict
    from ohlora.training.students.recipes import parse_phases, preset, with_portraits
    from ohlora.training.students.report import epoch_line

    changes: dict[str, Any] = {
        "encoder": encoder,
        "imagenet": imagenet,
        "phases": None if epochs is None else parse_phases(f"{size}:{epochs}"),
        "holdout": holdout,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "start_from": None if start_from is None else str(start_from),
        "seed": seed,
    }
    config = preset(recipe, **{key: value for key, value in changes.items() if value is not None})
    config = with_portraits(config, portraits, None, None, None)
    if config.mix is not None:
        config = replace(config, mix=replace(config.mix, held_out=held_out_portraits))
    result = compare(
        data,
        out,
        config,
        losses=losses.split(","),
        shown=shown,
        resume=not restart,
        accelerator=accelerator,
        report=lambda loss, row: typer.echo(f"{loss}: {epoch_line(row, config.epochs)}", err=True),
        note=lambda text: typer.echo(text, err=True),
    )
    if json:
        typer.echo(json_module.dumps(result))
        return
    show(table_rows(result["rows"]), "Distillation losses")
    typer.echo("\n".join(verdict(result["ordering"])))
    typer.echo(f"comparison.md, .csv, .json and overlays -> {out}")
