"""`ohlora train`: the training stages. PyTorch is imported only when a stage runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ohlora.cli import options

app = typer.Typer(help="Train the networks of the chain, stage by stage (needs the train extra).", no_args_is_help=True)


def require_training() -> None:
    """Raises BadRequest naming the extra when PyTorch and its companions are not installed."""
    import importlib.util

    from ohlora.errors import BadRequest

    missing = [name for name in ("torch", "timm", "lightning", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        raise BadRequest(f"this command needs {', '.join(missing)}: pip install 'ohlora[train]'")


@app.callback()
def _stages() -> None:
    """Keeps `ohlora train STAGE` a group while it has one stage."""


@app.command()
def distill(
    data: Annotated[
        list[Path],
        typer.Option("--data", help="Folder of pictures with hair_soft/NAME.png teacher maps. Repeatable."),
    ],
    out: options.Out = Path("runs/distill"),
    recipe: Annotated[
        str, typer.Option("--recipe", help="few-faces, or documented (B0, thousands of faces).")
    ] = "few-faces",
    encoder: Annotated[str | None, typer.Option("--encoder", help="Any timm model with five feature levels.")] = None,
    imagenet: Annotated[
        bool | None, typer.Option("--imagenet/--no-imagenet", help="Start from ImageNet weights.")
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
    accelerator: Annotated[str, typer.Option("--accelerator", help="auto, cpu or cuda.")] = "auto",
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Distil a light hair student from a teacher's soft maps. Stopped runs resume from the same --out.

    Example: `ohlora train distill --data faces --out runs/student`
    """
    import json as json_module

    require_training()
    from ohlora.training.distill import parse_phases, preset, run
    from ohlora.training.report import write_report

    changes: dict[str, Any] = {
        "encoder": encoder,
        "imagenet": imagenet,
        "loss": loss,
        "phases": None if phases is None else parse_phases(phases),
        "holdout": holdout,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "start_from": None if start_from is None else str(start_from),
        "seed": seed,
    }
    config = preset(recipe, **{key: value for key, value in changes.items() if value is not None})

    def show(row: dict[str, Any]) -> None:
        text = f"epoch {row['epoch'] + 1}/{config.epochs} at {row['size']} px: loss {row['train_loss']:.4f}"
        if "iou" in row:
            text += (
                f", held-out loss {row['valid_loss']:.4f}, IoU {row['iou']:.4f} (worst face {row['iou_face_min']:.3f})"
            )
        typer.echo(f"{text}, {row['seconds']:.0f} s", err=True)

    result = run(data, out, config, resume=not restart, accelerator=accelerator, report=show)
    write_report(out, result, data)
    if json:
        typer.echo(json_module.dumps(result))
    else:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in result.get("test", {}).items() if name != "faces")
        typer.echo(f"student -> {out / 'student.safetensors'}" + (f"; held out: {figures}" if figures else ""))
