"""`ohlora train classifier | classify | filter`: choose the pictures that a generator is fine-tuned on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ohlora.cli import options
from ohlora.cli.train.finetune import Accelerator, Devices, Nodes, TrainPrecision, launched

SHOWN_FAILURES = 20

Width = Annotated[float | None, typer.Option("--width", help="Scales every layer of the network; documented 1.")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="At most so many; documented: no limit.")]
Patience = Annotated[int | None, typer.Option("--patience", min=1, help="Epochs without a lower validation loss.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Documented 16.")]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", min=0)]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Of folds, weights, order and dropout; default 0.")]


def classifier(
    attribute: Annotated[str, typer.Argument(help="gender, quality, age or glass.")],
    images: Annotated[Path, typer.Argument(help="Folder of pictures NNNNNN.jpg; those with a label are used.")],
    labels: Annotated[Path, typer.Option("--labels", help="Hand labels (.csv) of `train label`, v1 or v3 layout.")],
    out: options.Out = Path("runs/cnn"),
    version: Annotated[str, typer.Option("--version", help="Documented recipe: v1 (gender, quality) or v3.")] = "v3",
    start_from: Annotated[
        Path | None, typer.Option("--start-from", help="v1 model that v3 gender and quality start from.")
    ] = None,
    start: Annotated[str | None, typer.Option("--start", help="random or v1-model; default: as documented.")] = None,
    width: Width = None,
    folds: Annotated[int | None, typer.Option("--folds", min=2, help="Documented 5.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="k-fold or stratified.")] = None,
    epochs: Epochs = None,
    patience: Patience = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Validation loss at which a fold has succeeded.")
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option("--max-attempts", min=1, help="Trainings of a fold without success; default 5.")
    ] = None,
    on_failure: Annotated[
        str | None, typer.Option("--on-failure", help="Then: error, or keep-best (marked success False).")
    ] = None,
    seed: Seed = None,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: TrainPrecision = "fp32",
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Train a classifier on hand-labelled pictures, one model per fold. Stopped runs resume from the same --out.

    Example: `ohlora train classifier glass faces --labels scores_labeled_first_2k.csv --out runs/cnn`
    """
    import json as json_module

    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.training.cnn.classifier import train_classifier
    from ohlora.training.cnn.recipes import classifier_recipe

    changes: dict[str, Any] = {
        "start": start, "width": width, "folds": folds, "split": split, "epochs": epochs, "patience": patience,
        "batch_size": batch_size, "learning_rate": learning_rate, "threshold": threshold,
        "max_attempts": max_attempts, "on_failure": on_failure, "seed": seed, "precision": precision,
    }  # fmt: skip
    recipe = classifier_recipe(version, attribute, **{k: v for k, v in changes.items() if v is not None})
    fabric = launched(accelerator, devices, nodes, precision)

    def show(row: dict[str, Any]) -> None:
        again = f", attempt {row['attempt'] + 1}" if row["attempt"] else ""
        typer.echo(
            f"{attribute}, fold {row['fold']}{again}, epoch {row['epoch']}: validation loss {row['val_loss']:.4f}, "
            f"accuracy {row['val_accuracy']:.3f}, best epoch {row['best_epoch']}",
            err=True,
        )

    result = train_classifier(
        attribute,
        images,
        labels,
        out,
        recipe,
        start_from=start_from,
        resume=not restart,
        fabric=fabric,
        report=show if fabric.is_global_zero else _silent,
        note=lambda text: typer.echo(text, err=True),
    )
    if not fabric.is_global_zero:
        return
    if json:
        typer.echo(json_module.dumps(result.summary()))
        return
    losses = ", ".join(
        f"{loss:.4f}{'' if success else ' (no success)'}"
        for loss, success in zip(result.min_val_loss, result.success, strict=True)
    )
    typer.echo(f"{len(result.models)} {attribute} models -> {result.folder}; validation loss {losses}")


def classify(
    images: Annotated[Path, typer.Argument(help="Folder of pictures NNNNNN.jpg.")],
    models: Annotated[Path, typer.Option("--models", help="Folder of {attribute}_model_{fold} files.")],
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Hand labels: these pictures keep them and are not scored.")
    ] = None,
    attributes: Annotated[
        list[str] | None, typer.Option("--attribute", help="Repeatable; default: all with models.")
    ] = None,
    out: options.Out = Path("runs/classify"),
    accelerator: Accelerator = "auto",
    precision: TrainPrecision = "fp32",
    json: options.Json = False,
) -> None:
    """Score pictures with the mean of the models of each attribute: {attribute}.csv, and one table of all.

    Example: `ohlora train classify faces --models runs/cnn/models --labels labels.csv --out runs/scores`
    """
    import json as json_module

    from ohlora.cli.progress import Progress
    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.io.numbered_images import numbered_images
    from ohlora.training.cnn.ensemble import find_models, present
    from ohlora.training.cnn.predict import merge, predict
    from ohlora.training.data.labels import read_labels
    from ohlora.training.nets.score_cnns import ATTRIBUTES

    names = tuple(dict.fromkeys(attributes)) if attributes else present(models) or ATTRIBUTES
    hand = None if labels is None else read_labels(labels)
    for name in names:  # before an hour of work on the others
        find_models(models, name)
        if hand is not None:
            hand.of(name)
    done = []
    with Progress(len(names) * len(numbered_images(images)), "scores", quiet=json) as progress:
        for name in names:
            done.append(
                predict(
                    name,
                    images,
                    models,
                    out,
                    labels=labels,
                    accelerator=accelerator,
                    precision=precision,
                    advance=progress.advance,
                )
            )
    table = merge(images, {result.attribute: result.table for result in done}, out, labels=labels)
    failed = {number: why for result in done for number, why in result.failed.items()}
    if json:
        summary = {
            "table": str(table),
            "tables": {result.attribute: str(result.table) for result in done},
            "pictures": {result.attribute: result.pictures for result in done},
            "failed": failed,
            "seconds": round(progress.seconds, 3),
        }
        typer.echo(json_module.dumps(summary))
    else:
        for why in list(failed.values())[:SHOWN_FAILURES]:
            typer.echo(why, err=True)
        scored = ", ".join(f"{result.attribute} {result.pictures}" for result in done)
        typer.echo(f"scored: {scored} pictures, {progress.seconds:.1f} s -> {table}")
    raise typer.Exit(1 if failed else 0)


def filter(
    scores: Annotated[Path, typer.Argument(help="Table of `train classify`.")],
    images: Annotated[Path, typer.Option("--images", help="Folder of the pictures.")],
    out: options.Out = Path("runs/filtered"),
    recipe: Annotated[str, typer.Option("--recipe", help="Documented thresholds: v1 or v3.")] = "v3",
    rule: Annotated[
        list[str] | None, typer.Option("--rule", help="COLUMN>=NUMBER or COLUMN<=NUMBER instead. Repeatable.")
    ] = None,
    first_number: Annotated[
        int | None, typer.Option("--first-number", min=0, help="Lower numbers are not kept; v3: 2000, 0 with --labels.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Do not keep the pictures that this table labels.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard links instead of copies (same file system).")] = False,
    json: options.Json = False,
) -> None:
    """Copy the pictures whose scores pass, names unchanged, and list them in filtered.csv. The same command goes on.

    Example: `ohlora train filter runs/scores/scores_all_15k.csv --images faces --recipe v3 --out runs/filtered`
    """
    import json as json_module
    from dataclasses import replace

    from ohlora.cli.progress import Progress
    from ohlora.cli.train.requirements import require_training

    require_training()
    from ohlora.training.cnn.filtering import filter_pictures
    from ohlora.training.cnn.recipes import FilterRecipe, filter_recipe, parse_rule

    chosen = FilterRecipe(tuple(parse_rule(text) for text in rule)) if rule else filter_recipe(recipe)
    if first_number is not None:
        chosen = replace(chosen, first_number=first_number)
    elif labels is not None:
        chosen = replace(chosen, first_number=0)  # the table says which ones, not their numbers
    with Progress(1, "pictures", quiet=json) as progress:

        def started(count: int) -> None:
            progress.total = count

        result = filter_pictures(
            scores, images, out, chosen, labels=labels, link=link, advance=progress.advance, started=started
        )
    if json:
        typer.echo(json_module.dumps(result.summary()))
        return
    for name, count in result.rejects.items():
        alone = f", {result.only[name]} of them by nothing else" if name in result.only else ""
        typer.echo(f"{name}: rejects {count}{alone}")
    typer.echo(f"{result.kept} of {result.pictures} pictures kept ({result.copied} copied now) -> {out}")


def _silent(row: dict[str, Any]) -> None:
    pass
