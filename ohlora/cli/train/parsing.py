"""`ohlora train parsing`: a light student that finds all eleven classes of a face."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ohlora.cli import options


def parsing(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            help="Folder of pictures with class maps in parsing11/ or parsing19/, or of `train parse`. Repeatable.",
        ),
    ],
    out: options.Out = Path("runs/parsing"),
    start_from: Annotated[
        Path | None, typer.Option("--start-from", help="Go on from a hair or parsing student's .safetensors.")
    ] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="Any timm model with five feature levels.")] = None,
    imagenet: Annotated[
        bool | None, typer.Option("--imagenet/--no-imagenet", help="Start from ImageNet weights.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", help="soft_ce (shares of pixels, default) or hard_ce (whole pixels).")
    ] = None,
    balance: Annotated[
        float | None, typer.Option("--balance", help="0 counts pixels alike, 1 classes alike; default 0.35.")
    ] = None,
    phases: Annotated[
        str | None, typer.Option("--phases", help="SIZE:EPOCHS,... in order; default 128:10,224:6.")
    ] = None,
    evaluate_every: Annotated[int | None, typer.Option("--evaluate-every", min=1, help="Epochs; default 2.")] = None,
    holdout: Annotated[
        float | None, typer.Option("--holdout", min=0, max=0.9, help="Share of people; 0 trains on all.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", min=0)] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=2)] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    portraits: Annotated[
        str | None,
        typer.Option(
            "--portraits", help="Painted portraits: how many (default 2000), a folder of `train portraits`, 0."
        ),
    ] = None,
    generated: Annotated[
        str | None,
        typer.Option("--generated", help="Mix in pictures of this portrait-trained generator (.safetensors, bundle)."),
    ] = None,
    generated_count: Annotated[
        int | None, typer.Option("--generated-count", min=1, help="How many; default 1000.")
    ] = None,
    portrait_share: Annotated[
        float | None,
        typer.Option("--portrait-share", help="Part of an epoch that is painted or generated; default 0.5."),
    ] = None,
    accelerator: Annotated[str, typer.Option("--accelerator", help="auto, cpu or cuda.")] = "auto",
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Distil a face parser from a teacher's class maps. Stopped runs resume from the same --out.

    Example: `ohlora train parsing --data faces --start-from runs/student/student.safetensors --out runs/parsing`
    """
    import json as json_module
    from dataclasses import replace

    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.training.students.parsing.distill import run
    from ohlora.training.students.parsing.recipes import ParsingConfig
    from ohlora.training.students.parsing.report import figures_line, write_report
    from ohlora.training.students.recipes import parse_phases, with_portraits
    from ohlora.training.students.report import epoch_line

    changes: dict[str, Any] = {
        "encoder": encoder,
        "imagenet": imagenet,
        "loss": loss,
        "balance": balance,
        "phases": None if phases is None else parse_phases(phases),
        "evaluate_every": evaluate_every,
        "holdout": holdout,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "start_from": None if start_from is None else str(start_from),
        "seed": seed,
    }
    config = ParsingConfig(**{key: value for key, value in changes.items() if value is not None})
    if portraits == "0" and generated is None:
        config = replace(config, mix=None)
    else:
        mixed = with_portraits(config, portraits, generated, generated_count, portrait_share)
        assert isinstance(mixed, ParsingConfig)
        config = mixed

    result, sources = run(
        data,
        out,
        config,
        resume=not restart,
        accelerator=accelerator,
        report=lambda row: typer.echo(epoch_line(row, config.epochs), err=True),
        note=lambda text: typer.echo(text, err=True),
    )
    write_report(out, result, sources.pictures)
    typer.echo(json_module.dumps(result) if json else figures_line(out, result))
