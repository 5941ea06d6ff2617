"""`ohlora train distill`: a light hair student, taught a teacher's soft maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ohlora.cli import options


def distill(
    data: Annotated[
        list[Path],
        typer.Option("--data", help="Folder of pictures with hair_soft/NAME.png teacher maps. Repeatable."),
    ],
    out: options.Out = Path("runs/distill"),
    recipe: Annotated[
        str,
        typer.Option("--recipe", help="documented (B0, thousands of faces), few-faces, or portraits (fine-tunes)."),
    ] = "documented",
    encoder: Annotated[str | None, typer.Option("--encoder", help="Any timm model with five feature levels.")] = None,
    imagenet: Annotated[
        bool | None, typer.Option("--imagenet/--no-imagenet", help="Start from ImageNet weights.")
    ] = None,
    encoder_weights: Annotated[
        Path | None, typer.Option("--encoder-weights", help="The documented start: efficientnet-b0-355c32eb.pth.")
    ] = None,
    loss: Annotated[str | None, typer.Option("--loss", help="soft_bce, mse or kl.")] = None,
    phases: Annotated[
        str | None, typer.Option("--phases", help="SIZE:EPOCHS,... in order, e.g. 128:60,224:28.")
    ] = None,
    holdout: Annotated[
        float | None, typer.Option("--holdout", min=0, max=0.9, help="Share of people; 0 trains on all.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", min=0)] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=2)] = None,
    start_from: Annotated[
        Path | None, typer.Option("--start-from", help="Go on from a student's .safetensors.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    portraits: Annotated[
        str | None,
        typer.Option("--portraits", help="Mix in painted portraits: how many, or a folder of `train portraits`."),
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
    """Distil a light hair student from a teacher's soft maps. Stopped runs resume from the same --out.

    Example: `ohlora train distill --data faces --recipe few-faces --out runs/student`
    """
    import json as json_module

    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.training.students.distill import parse_phases, preset, run
    from ohlora.training.students.recipes import with_portraits
    from ohlora.training.students.report import epoch_line, figures_line, write_report
    from ohlora.training.students.sources import report_pictures

    changes: dict[str, Any] = {
        "encoder": encoder,
        "imagenet": imagenet,
        "encoder_weights": None if encoder_weights is None else str(encoder_weights),
        "loss": loss,
        "phases": None if phases is None else parse_phases(phases),
        "holdout": holdout,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "start_from": None if start_from is None else str(start_from),
        "seed": seed,
    }
    config = preset(recipe, **{key: value for key, value in changes.items() if value is not None})
    config = with_portraits(config, portraits, generated, generated_count, portrait_share)

    def show(row: dict[str, Any]) -> None:
        typer.echo(epoch_line(row, config.epochs), err=True)

    result = run(
        data,
        out,
        config,
        resume=not restart,
        accelerator=accelerator,
        report=show,
        note=lambda text: typer.echo(text, err=True),
    )
    write_report(out, result, report_pictures(data, out, config))
    typer.echo(json_module.dumps(result) if json else figures_line(out, result))
