"""`ohlora train classifier | classify | filter | property-cnn | hairstyle-cnn | merge-cnn | rescore`: networks that
choose the pictures a generator is fine-tuned on, and networks that read scores off a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from ohlora.cli.report import Results, note
from ohlora.cli.train.machine import Accelerator, Machine, Precision, first_process
from ohlora.cli.train.recipe_options import Changes, RecipeFields

AllImages = Annotated[Path, Argument(help="Folder of pictures NNNNNN.jpg.")]


def classifier(
    *,
    attribute: Annotated[str, Argument(help="gender, quality, age or glass.")],
    images: Annotated[Path, Argument(help="Folder of pictures NNNNNN.jpg; those with a label are used.")],
    labels: Annotated[Path, Option(help="Hand labels (.csv) of `train label`, v1 or v3 layout.")],
    changes: Annotated[Changes, RecipeFields("cnn.recipes:ClassifierRecipe", table="CLASSIFIERS")],
    version: Annotated[str, Option(help="Documented recipe: v1 (gender, quality) or v3.")] = "v3",
    start_from: Annotated[Path | None, Option(help="v1 model that v3 gender and quality start from.")] = None,
    how: Machine = Machine(out=Path("runs/cnn")),
) -> None:
    """Train a classifier on hand-labelled pictures, one model per fold. Stopped runs resume from the same --out.

    Example: `ohlora train classifier glass faces --labels scores_labeled_first_2k.csv --out runs/cnn`
    """
    from ohlora.training.cnn.classifier import train_classifier
    from ohlora.training.cnn.recipes import classifier_recipe

    recipe = classifier_recipe(version, attribute, **changes, precision=how.precision)
    fabric = how.launch()

    def show(row: dict[str, Any]) -> None:
        again = f", attempt {row['attempt'] + 1}" if row["attempt"] else ""
        note(
            f"{attribute}, fold {row['fold']}{again}, epoch {row['epoch']}: validation loss {row['val_loss']:.4f}, "
            f"accuracy {row['val_accuracy']:.3f}, best epoch {row['best_epoch']}"
        )

    result = train_classifier(
        attribute,
        images,
        labels,
        how.out,
        recipe,
        start_from=start_from,
        resume=how.resume,
        fabric=fabric,
        report=first_process(fabric, show),
        note=note,
    )
    if fabric.is_global_zero:
        losses = ", ".join(
            f"{loss:.4f}{'' if success else ' (no success)'}"
            for loss, success in zip(result.min_val_loss, result.success, strict=True)
        )
        line = f"{len(result.models)} {attribute} models -> {result.folder}; validation loss {losses}"
        how.tell(vars(result), line)


def classify(
    *,
    images: AllImages,
    models: Annotated[Path, Option(help="Folder of {attribute}_model_{fold} files.")],
    labels: Annotated[Path | None, Option(help="Hand labels: these pictures keep them and are not scored.")] = None,
    attributes: Annotated[list[str] | None, Option("--attribute", help="Repeatable; default: all with models.")] = None,
    accelerator: Accelerator = "auto",
    precision: Precision = "fp32",
    how: Results = Results(out=Path("runs/classify")),
) -> None:
    """Score pictures with the mean of the models of each attribute: {attribute}.csv, and one table of all.

    Example: `ohlora train classify faces --models runs/cnn/models --labels labels.csv --out runs/scores`
    """
    from ohlora.cli.progress import Progress
    from ohlora.io.numbered_images import numbered_images
    from ohlora.training.cnn.ensemble import find_models, present
    from ohlora.training.cnn.scoring import merge, predict
    from ohlora.training.data.labels import read_labels
    from ohlora.training.nets.choices import ATTRIBUTES

    names = tuple(dict.fromkeys(attributes)) if attributes else present(models) or ATTRIBUTES
    hand = None if labels is None else read_labels(labels)
    for name in names:  # before an hour of work on the others
        find_models(models, name)
        if hand is not None:
            hand.of(name)
    with Progress(len(names) * len(numbered_images(images)), "scores") as progress:
        done = [
            predict(
                name,
                images,
                models,
                how.out,
                labels=labels,
                accelerator=accelerator,
                precision=precision,
                advance=progress.advance,
            )
            for name in names
        ]
    table = merge(images, {result.attribute: result.table for result in done}, how.out, labels=labels)
    failed = {number: why for result in done for number, why in result.failed.items()}
    summary = {
        "table": str(table),
        "tables": {result.attribute: str(result.table) for result in done},
        "pictures": {result.attribute: result.pictures for result in done},
        "failed": failed,
        "seconds": round(progress.seconds, 3),
    }
    scored = ", ".join(f"{result.attribute} {result.pictures}" for result in done)
    how.end(summary, list(failed.values()), f"scored: {scored} pictures, {progress.seconds:.1f} s -> {table}")


def filter(
    *,
    scores: Annotated[Path, Argument(help="Table of `train classify`.")],
    images: Annotated[Path, Option(help="Folder of the pictures.")],
    recipe: Annotated[str, Option(help="Documented thresholds: v1 or v3.")] = "v3",
    rule: Annotated[list[str] | None, Option(help="COLUMN>=NUMBER or COLUMN<=NUMBER instead. Repeatable.")] = None,
    first_number: Annotated[
        int | None, Option(min=0, help="Lower numbers are not kept; v3: 2000, 0 with --labels.")
    ] = None,
    labels: Annotated[Path | None, Option(help="Do not keep the pictures that this table labels.")] = None,
    link: Annotated[bool, Option("--link", help="Hard links instead of copies (same file system).")] = False,
    how: Results = Results(out=Path("runs/filtered")),
) -> None:
    """Copy the pictures whose scores pass, names unchanged, and list them in filtered.csv. The same command goes on.

    Example: `ohlora train filter runs/scores/scores_all_15k.csv --images faces --recipe v3 --out runs/filtered`
    """
    from ohlora.cli.progress import Progress
    from ohlora.training.cnn.filtering import filter_pictures
    from ohlora.training.cnn.recipes import FilterRecipe, filter_recipe, parse_rule

    chosen = FilterRecipe(tuple(parse_rule(text) for text in rule)) if rule else filter_recipe(recipe)
    if first_number is not None:
        chosen = replace(chosen, first_number=first_number)
    elif labels is not None:
        chosen = replace(chosen, first_number=0)  # the table says which ones, not their numbers
    with Progress(1, "pictures") as progress:
        result = filter_pictures(
            scores, images, how.out, chosen, labels=labels, link=link, advance=progress.advance, started=progress.expect
        )
    lines = [
        f"{name}: rejects {count}" + (f", {result.only[name]} of them by nothing else" if name in result.only else "")
        for name, count in result.rejects.items()
    ]
    last = f"{result.kept} of {result.pictures} pictures kept ({result.copied} copied now) -> {how.out}"
    how.tell(vars(result), *lines, last)


def score_cnn(name: str, about: str) -> Callable[..., None]:
    """The command that trains one of the two CNNs that read scores off a picture."""

    def command(
        *,
        images: Annotated[Path, Argument(help="Folder of pictures NNNNNN.jpg; those in the table are used.")],
        scores: Annotated[Path, Option(help="Score table of `ohlora score`, normalised.")],
        changes: Annotated[Changes, RecipeFields("cnn.recipes:ScoreCnnRecipe", table="SCORE_CNNS")],
        how: Machine = Machine(out=Path(f"runs/{name}-cnn")),
    ) -> None:
        from ohlora.training.cnn.recipes import score_cnn_recipe
        from ohlora.training.cnn.regression import train_score_cnn

        recipe = score_cnn_recipe(name, **changes, precision=how.precision)
        fabric = how.launch()

        def show(row: dict[str, Any]) -> None:
            note(
                f"{name} CNN, epoch {row['epoch']}: validation loss {row['loss']:.4f} (all outputs "
                f"{row['valid_loss']:.4f}), best epoch {row['best_epoch']}"
            )

        report = first_process(fabric, show)
        result = train_score_cnn(
            images, scores, how.out, recipe, resume=how.resume, fabric=fabric, report=report, note=note
        )
        if fabric.is_global_zero:
            correlations = ", ".join(
                f"{key.removesuffix('_score_corr')} {'-' if value is None else f'{value:.3f}'}"
                for key, value in result.figures.items()
                if key.endswith("_corr")
            )
            best = f"best epoch {result.best_epoch} of {result.epochs}; correlation with the scores: {correlations}"
            how.tell(vars(result), best, f"network -> {result.model}")

    command.__doc__ = about
    return command


property_cnn = score_cnn(
    "property",
    """Train the CNN that reads the seven property scores off a picture. Stopped runs resume from the same --out.

    Example: `ohlora train property-cnn runs/filtered --scores all_scores_v2.csv --out runs/property-cnn`
    """,
)
hairstyle_cnn = score_cnn(
    "hairstyle",
    """Train the CNN that reads off how curly the hair is. Stopped runs resume from the same --out.

    Example: `ohlora train hairstyle-cnn runs/filtered --scores all_scores_ohlora_v3.csv --out runs/hairstyle-cnn`
    """,
)


def merge_cnn(
    *,
    properties: Annotated[Path, Argument(help="Property CNN (.pth published or .safetensors).")],
    hairstyle: Annotated[Path, Argument(help="Hairstyle CNN (.pth published or .safetensors).")],
    how: Results = Results(out=Path("runs/merged-cnn")),
) -> None:
    """Put the property CNN and the hairstyle CNN into one network with eight outputs.

    Example: `ohlora train merge-cnn stylegan_gen_fine_tuned_v2_cnn.pth ohlora_v3_hairstyle_property_cnn.pth`
    """
    from ohlora.training.cnn.regression import merge_cnns

    model = merge_cnns(properties, hairstyle, how.out)
    how.tell({"model": str(model)}, f"network -> {model}")


def rescore(
    *,
    images: AllImages,
    model: Annotated[Path, Option(help="A score CNN (.pth published or .safetensors).")],
    kind: Annotated[str, Option(help="property (7 scores), hairstyle (1) or merged (8).")] = "property",
    scores: Annotated[
        Path | None, Option(help="The table it learned: writes compare/all_scores_v2_vs_cnn.csv.")
    ] = None,
    accelerator: Accelerator = "auto",
    precision: Precision = "fp32",
    how: Results = Results(out=Path("runs/rescore")),
) -> None:
    """Read the scores of pictures off with a trained CNN: all_scores_v2_cnn.csv. The same command goes on.

    Example: `ohlora train rescore runs/filtered --model stylegan_gen_fine_tuned_v2_cnn.pth --scores all_scores_v2.csv`
    """
    from ohlora.cli.progress import Progress
    from ohlora.io.numbered_images import numbered_images
    from ohlora.training.cnn import scoring

    with Progress(len(numbered_images(images)), "pictures") as progress:
        result = scoring.rescore(
            images,
            model,
            how.out,
            kind=kind,
            scores=scores,
            accelerator=accelerator,
            precision=precision,
            advance=progress.advance,
        )
    summary = {
        "table": str(result.table),
        "pictures": result.pictures,
        "comparison": None if result.comparison is None else str(result.comparison),
        "correlations": result.correlations,
        "failed": result.failed,
        "seconds": round(progress.seconds, 3),
    }
    lines = [
        f"{column}: correlation {'undefined' if value is None else f'{value:.4f}'}"
        for column, value in result.correlations.items()
    ]
    last = f"{result.pictures} pictures scored, {progress.seconds:.1f} s -> {result.table}"
    how.end(summary, list(result.failed.values()), *lines, last)
