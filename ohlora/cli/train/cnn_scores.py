"""`ohlora train property-cnn | hairstyle-cnn | merge-cnn | rescore`: networks that read scores off a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ohlora.cli import options
from ohlora.cli.train.cnn import SHOWN_FAILURES, BatchSize, Epochs, LearningRate, Patience, Seed, Width
from ohlora.cli.train.finetune import Accelerator, Devices, Nodes, TrainPrecision, launched

Scores = Annotated[Path, typer.Option("--scores", help="Score table of `ohlora score`, normalised.")]
Images = Annotated[Path, typer.Argument(help="Folder of pictures NNNNNN.jpg; those in the table are used.")]
Missing = Annotated[str, typer.Option("--missing", help="Pictures with an empty cell: error or drop.")]


def property_cnn(
    images: Images,
    scores: Scores,
    out: options.Out = Path("runs/property-cnn"),
    width: Width = None,
    epochs: Epochs = None,
    patience: Patience = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    missing: Missing = "error",
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: TrainPrecision = "fp32",
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Train the CNN that reads the seven property scores off a picture. Stopped runs resume from the same --out.

    Example: `ohlora train property-cnn runs/filtered --scores all_scores_v2.csv --out runs/property-cnn`
    """
    changes = {
        "width": width, "epochs": epochs, "patience": patience, "batch_size": batch_size,
        "learning_rate": learning_rate, "seed": seed, "missing": missing, "precision": precision,
    }  # fmt: skip
    _train("property", images, scores, out, changes, (accelerator, devices, nodes, precision), restart, json)


def hairstyle_cnn(
    images: Images,
    scores: Scores,
    out: options.Out = Path("runs/hairstyle-cnn"),
    width: Width = None,
    epochs: Epochs = None,
    patience: Patience = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    missing: Missing = "error",
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: TrainPrecision = "fp32",
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Train the CNN that reads off how curly the hair is. Stopped runs resume from the same --out.

    Example: `ohlora train hairstyle-cnn runs/filtered --scores all_scores_ohlora_v3.csv --out runs/hairstyle-cnn`
    """
    changes = {
        "width": width, "epochs": epochs, "patience": patience, "batch_size": batch_size,
        "learning_rate": learning_rate, "seed": seed, "missing": missing, "precision": precision,
    }  # fmt: skip
    _train("hairstyle", images, scores, out, changes, (accelerator, devices, nodes, precision), restart, json)


def _train(
    name: str,
    images: Path,
    scores: Path,
    out: Path,
    changes: dict[str, Any],
    machine: tuple[str, int, int, str],
    restart: bool,
    as_json: bool,
) -> None:
    import json

    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.training.cnn.recipes import score_cnn_recipe
    from ohlora.training.cnn.regression import train_score_cnn

    recipe = score_cnn_recipe(name, **{key: value for key, value in changes.items() if value is not None})
    fabric = launched(*machine)

    def show(row: dict[str, Any]) -> None:
        if fabric.is_global_zero:
            typer.echo(
                f"{name} CNN, epoch {row['epoch']}: validation loss {row['loss']:.4f} (all outputs "
                f"{row['valid_loss']:.4f}), best epoch {row['best_epoch']}",
                err=True,
            )

    result = train_score_cnn(
        images,
        scores,
        out,
        recipe,
        resume=not restart,
        fabric=fabric,
        report=show,
        note=lambda text: typer.echo(text, err=True),
    )
    if not fabric.is_global_zero:
        return
    if as_json:
        typer.echo(json.dumps(result.summary()))
        return
    correlations = ", ".join(
        f"{key.removesuffix('_score_corr')} {'-' if value is None else f'{value:.3f}'}"
        for key, value in result.figures.items()
        if key.endswith("_corr")
    )
    typer.echo(f"best epoch {result.best_epoch} of {result.epochs}; correlation with the scores: {correlations}")
    typer.echo(f"network -> {result.model}")


def merge_cnn(
    properties: Annotated[Path, typer.Argument(help="Property CNN (.pth published or .safetensors).")],
    hairstyle: Annotated[Path, typer.Argument(help="Hairstyle CNN (.pth published or .safetensors).")],
    out: options.Out = Path("runs/merged-cnn"),
    json: options.Json = False,
) -> None:
    """Put the property CNN and the hairstyle CNN into one network with eight outputs.

    Example: `ohlora train merge-cnn stylegan_gen_fine_tuned_v2_cnn.pth ohlora_v3_hairstyle_property_cnn.pth`
    """
    import json as json_module

    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.training.cnn.regression import merge_cnns

    model = merge_cnns(properties, hairstyle, out)
    typer.echo(json_module.dumps({"model": str(model)}) if json else f"network -> {model}")


def rescore(
    images: Annotated[Path, typer.Argument(help="Folder of pictures NNNNNN.jpg.")],
    model: Annotated[Path, typer.Option("--model", help="A score CNN (.pth published or .safetensors).")],
    kind: Annotated[str, typer.Option("--kind", help="property (7 scores), hairstyle (1) or merged (8).")] = "property",
    scores: Annotated[
        Path | None, typer.Option("--scores", help="The table it learned: writes compare/all_scores_v2_vs_cnn.csv.")
    ] = None,
    out: options.Out = Path("runs/rescore"),
    accelerator: Accelerator = "auto",
    precision: TrainPrecision = "fp32",
    json: options.Json = False,
) -> None:
    """Read the scores of pictures off with a trained CNN: all_scores_v2_cnn.csv. The same command goes on.

    Example: `ohlora train rescore runs/filtered --model stylegan_gen_fine_tuned_v2_cnn.pth --scores all_scores_v2.csv`
    """
    import json as json_module

    from ohlora.cli.progress import Progress
    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.io.numbered_images import numbered_images
    from ohlora.training.cnn import rescore as rescoring

    with Progress(len(numbered_images(images)), "pictures", quiet=json) as progress:
        result = rescoring.rescore(
            images,
            model,
            out,
            kind=kind,
            scores=scores,
            accelerator=accelerator,
            precision=precision,
            advance=progress.advance,
        )
    if json:
        summary = {
            "table": str(result.table),
            "pictures": result.pictures,
            "comparison": None if result.comparison is None else str(result.comparison),
            "correlations": result.correlations,
            "failed": result.failed,
            "seconds": round(progress.seconds, 3),
        }
        typer.echo(json_module.dumps(summary))
    else:
        for why in list(result.failed.values())[:SHOWN_FAILURES]:
            typer.echo(why, err=True)
        for column, value in result.correlations.items():
            typer.echo(f"{column}: correlation {'undefined' if value is None else f'{value:.4f}'}")
        typer.echo(f"{result.pictures} pictures scored, {progress.seconds:.1f} s -> {result.table}")
    raise typer.Exit(1 if result.failed else 0)
