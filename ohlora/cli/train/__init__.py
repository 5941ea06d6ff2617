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

    from ohlora.base.installation import install_command
    from ohlora.errors import BadRequest

    missing = [name for name in ("torch", "timm", "lightning", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        raise BadRequest(f"this command needs {', '.join(missing)}: {install_command('train')}")


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


from ohlora.cli.train import directions as train_directions  # noqa: E402 - further stages register on the finished app

app.command("directions")(train_directions.directions)
app.command("gallery")(train_directions.gallery)
app.command("reader")(train_directions.reader)

from ohlora.cli.train.gan import gan  # noqa: E402 - as above

app.command("gan")(gan)

from ohlora.cli.train import portraits as train_portraits  # noqa: E402 - as above

app.command("portraits")(train_portraits.portraits)
app.command("evaluate-hair")(train_portraits.evaluate_hair)

from ohlora.cli.train.parse import parse  # noqa: E402 - as above

app.command("parse")(parse)

from ohlora.cli.train.compare_losses import compare_losses  # noqa: E402 - as above
from ohlora.cli.train.parsing import parsing  # noqa: E402 - as above

app.command("compare-losses")(compare_losses)
app.command("parsing")(parsing)

from ohlora.cli.train import hairzoo as train_hairzoo  # noqa: E402 - as above

app.command("hairzoo")(train_hairzoo.hairzoo)
app.command("hairzoo-data")(train_hairzoo.hairzoo_data)
app.command("hairzoo-inference")(train_hairzoo.hairzoo_inference)

from ohlora.cli.train import sample as train_sample  # noqa: E402 - as above

app.command("sample")(train_sample.sample)
app.command("unbundle")(train_sample.unbundle)

from ohlora.cli.train import finetune as train_finetune  # noqa: E402 - as above

app.command("finetune")(train_finetune.finetune)
app.command("finetune-discriminator")(train_finetune.finetune_discriminator)

from ohlora.cli.train.label import label  # noqa: E402 - as above

app.command("label")(label)

from ohlora.cli.train.pipeline import pipeline  # noqa: E402 - as above

app.command("pipeline")(pipeline)

from ohlora.cli.train import cnn as train_cnn  # noqa: E402 - as above
from ohlora.cli.train import cnn_scores as train_cnn_scores  # noqa: E402 - as above

app.command("classifier")(train_cnn.classifier)
app.command("classify")(train_cnn.classify)
app.command("filter")(train_cnn.filter)
app.command("property-cnn")(train_cnn_scores.property_cnn)
app.command("hairstyle-cnn")(train_cnn_scores.hairstyle_cnn)
app.command("merge-cnn")(train_cnn_scores.merge_cnn)
app.command("rescore")(train_cnn_scores.rescore)

from ohlora.cli.train.finetune_test import finetune_test  # noqa: E402 - as above

app.command("finetune-test")(finetune_test)

from ohlora.cli.train.select import select  # noqa: E402 - as above

app.command("select")(select)

from ohlora.cli.train.vectorfind import vectorfind  # noqa: E402 - as above

app.command("vectorfind")(vectorfind)
