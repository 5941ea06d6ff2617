"""Stages that find the parts of faces, score them, and train the networks that score."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.base.atomic import make_folder, remove_leftovers
from ohlora.base.values import PROPERTIES
from ohlora.errors import InvalidInputError
from ohlora.io.numbered_images import numbered_images
from ohlora.scores import score_folder
from ohlora.scores.result import ScoreResult
from ohlora.scores.table import PROPERTY_COLUMNS, write_score_table
from ohlora.training.cnn.classifier import train_classifier
from ohlora.training.cnn.recipes import HAIRSTYLE_COLUMNS, ClassifierRecipe, ScoreCnnRecipe
from ohlora.training.cnn.regression import ScoreCnnResult, merge_cnns, train_score_cnn
from ohlora.training.cnn.scoring import rescore
from ohlora.training.pipeline.graph import External
from ohlora.training.pipeline.manifest import Output
from ohlora.training.pipeline.maps import portrait_maps
from ohlora.training.pipeline.stages.pictures import grid, link
from ohlora.training.pipeline.work import Outcome, Work
from ohlora.training.teachers.bundle import BundleTeacher
from ohlora.training.teachers.parse import ParseSettings, parse_pictures
from ohlora.training.teachers.protocol import Labeller
from ohlora.training.teachers.registry import load_teacher

PARSING_PREFIX, OVERLAY_PREFIX = "parsing_", "parsing_visualization_"
TABLES = {"v1": "all_scores.csv", "v2": "all_scores_v2.csv"}
HAIRSTYLE_TABLE = "all_scores_ohlora_v3.csv"


# Class maps


def parse_files(name: str) -> Callable[[Mapping[str, Any]], Iterable[External]]:
    def files(sections: Mapping[str, Any]) -> Iterable[External]:
        section = sections[name]
        if section.source == "teacher":
            made_by = f"download FaceXFormer's model.pt or BiSeNet's 79999_iter.pth, or set {name}.source to bundle"
            yield External(f"{name}.teacher", made_by)
        elif section.source in ("bundle", "hair") and section.bundle != "demo":
            yield External(f"{name}.bundle", "build one with `ohlora bundle build`")

    return files


def parse(work: Work) -> Outcome:
    section, folder = work.section, work.folder / "faces"
    images = numbered_images(work.inputs["images"])
    advance = work.counter(len(images))
    failed: dict[str, int] = {}
    if section.source == "portraits":
        parsed = portrait_maps(images, work.settings["sample_10k"].first_seed, folder, advance)
    else:
        if section.source == "teacher":
            teacher: Labeller = load_teacher(section.teacher, device=work.machine.accelerator)
        else:
            teacher = BundleTeacher(section.bundle, section.source == "hair")
        variant = ParseSettings(section.variant)
        done = parse_pictures(list(images.values()), folder, teacher, variant, batch=section.batch, advance=advance)
        parsed = done.parsed + done.already_there
        for row in done.failures:
            failed[row["status"]] = failed.get(row["status"], 0) + 1
        if not parsed:
            raise InvalidInputError(
                f"none of {len(images)} pictures could be parsed, the first: {done.failures[0]['error']}; for faces "
                f"that fill the picture set {next(iter(work.settings))}.variant: full-frame"
            )
        grid(work, "class maps", list(numbered_images(folder, OVERLAY_PREFIX).values())[:16])
    figures = {"counts": {"parsed": parsed, **failed}, "source": section.source}
    return Outcome({"faces": Output("faces", "*.png")}, figures)


# Property scores


def property_scores(work: Work) -> Outcome:
    """v1 and v2 scores of every parsed picture, and the pictures that have all of both."""
    images, result = scored(work, "v1", "v2")
    tables = result.normalized
    complete = np.all([~np.isnan(table.values).any(1) for table in tables.values()], axis=0)
    if complete.sum() < 2:
        raise InvalidInputError(
            f"{int(complete.sum())} of {len(images)} pictures have all scores: there is nothing to train on"
        )
    kept = tables["v2"].numbers[complete]
    for name, file in TABLES.items():
        write_score_table(work.folder / file, tables[name].rows(kept))
    keep_pictures({int(number): images[int(number)] for number in kept}, work.folder / "images")
    work.shown.picture("raw scores of both algorithms", "scores/scores.png")
    figures = {
        "counts": {"parsed": len(images), "scored": len(kept), "without a score": len(images) - len(kept)},
        "v2_mean": dict(zip(PROPERTY_COLUMNS, result.statistics["v2"].mean.tolist(), strict=True)),
    }
    outputs = {name: Output(file) for name, file in TABLES.items()}
    return Outcome({**outputs, "images": Output("images", "*.jpg")}, figures)


def hairstyle_scores(work: Work) -> Outcome:
    _, result = scored(work, "hairstyle")
    write_score_table(work.folder / HAIRSTYLE_TABLE, result.normalized["hairstyle"])
    work.shown.picture("raw scores", "scores/scores.png")
    raw = result.raw["hairstyle"].values
    figures = {"counts": {"scored": result.scored}, "mean": float(raw.mean()), "deviation": float(raw.std(ddof=1))}
    return Outcome({"scores": Output(HAIRSTYLE_TABLE)}, figures)


def scored(work: Work, *algorithms: str) -> tuple[dict[int, Path], ScoreResult]:
    """The stage's pictures in which a face was found, and their scores.

    Raises InvalidInputError for pictures that could not be scored, and for a score that is the same for all.
    """
    maps = numbered_images(work.inputs["faces"], PARSING_PREFIX)
    images = {number: path for number, path in numbered_images(work.inputs["images"]).items() if number in maps}
    advance = work.counter(len(images))
    result = score_folder(work.inputs["faces"], work.folder / "scores", algorithms, pictures=images, advance=advance)
    if result.failures:
        first = result.failures[0]
        raise InvalidInputError(
            f"{len(result.failures)} pictures could not be scored, number {first['number']}: {first['error']}"
        )
    for name, table in result.normalized.items():
        same = [c for c, column in zip(table.columns, table.values.T, strict=True) if np.isnan(column).all()]
        if same:
            raise InvalidInputError(
                f"the {name} scores {', '.join(same)} are the same for every picture: use more pictures"
            )
    return images, result


def keep_pictures(paths: Mapping[int, Path], folder: Path) -> None:
    """These pictures and no others in `folder`, as hard links where the file system has them."""
    remove_leftovers(make_folder(folder))
    names = {path.name for path in paths.values()}
    for other in folder.iterdir():
        if other.name not in names:
            other.unlink()
    for path in paths.values():
        target = folder / path.name
        if not target.is_file() or target.stat().st_size != path.stat().st_size:
            link(path, target)


# Networks that score


def classifier(work: Work) -> Outcome:
    """One classifier, all folds."""
    recipe: ClassifierRecipe = replace(work.recipe, precision=work.precision)
    start = work.inputs.get("start")
    result = train_classifier(
        recipe.attribute,
        work.inputs["images"],
        work.inputs["labels"],
        work.folder,
        recipe,
        start_from=None if start is None else start / f"{recipe.attribute}_model_0.safetensors",
        fabric=work.fabric(),
        report=work.listener(lambda r: f"fold {r['fold']}, epoch {r['epoch']}: validation loss {r['loss']:.4f}"),
        note=work.note,
    )
    details = [
        epoch_detail(work.folder / "log" / f"epoch_detail_{recipe.attribute}_{k}.csv") for k in range(recipe.folds)
    ]
    folds = []
    for k, (detail, best) in enumerate(zip(details, result.best_epoch, strict=True)):
        kept = [k, result.success[k], result.min_val_loss[k], best, result.attempts[k]]
        folds.append([*kept, detail["val_accuracy"][best], detail["val_auroc"][best]])
    columns = ("fold", "success", "validation loss", "best epoch", "attempts", "accuracy", "AUROC")
    work.shown.table(f"Folds of {recipe.attribute}", columns, folds)
    longest = max(len(detail["val_loss"]) for detail in details)
    losses = {
        f"fold {k}": [*detail["val_loss"], *[None] * (longest - len(detail["val_loss"]))]
        for k, detail in enumerate(details)
    }
    work.shown.curve("validation loss", range(longest), losses, "epoch")
    figures = {
        "counts": {"labelled": result.pictures, "folds": recipe.folds, "successful": sum(result.success)},
        "folds": [dict(zip(columns, row, strict=True)) for row in folds],
    }
    return Outcome({"models": Output("models", "*.safetensors")}, figures)


def score_cnn(work: Work) -> Outcome:
    """The property or the hairstyle CNN."""
    recipe: ScoreCnnRecipe = replace(work.recipe, precision=work.precision)
    floor, longer = work.section.floor, work.section.longer
    folder, result = work.folder, _trained(work, recipe, work.folder)
    if recipe.epochs is not None and longer > 1 and below_floor(result, floor):
        recipe = replace(recipe, epochs=recipe.epochs * longer, half_period=recipe.half_period * longer)
        work.note(f"{below_floor(result, floor)}: trained again, for {recipe.epochs} epochs")
        folder = work.folder / "longer"  # its own, so that an interrupted stage resumes in either
        result = _trained(work, recipe, folder)
    log = epoch_detail(folder / recipe.log_file)
    losses = {column: values for column, values in log.items() if column.startswith("val")}
    correlations = {column: values for column, values in log.items() if column.endswith("_corr")}
    work.shown.curve("validation loss", log["epoch"], losses, "epoch")
    work.shown.curve("correlation, held out", log["epoch"], correlations, "epoch")
    figures = {
        "counts": {"pictures": result.pictures, "epochs": result.epochs},
        "best_epoch": result.best_epoch,
        "loss": result.loss,
        "best": dict(result.figures),
    }
    if missed := below_floor(result, floor):
        figures["warning"] = f"{missed}: what is trained with it will not control them well"
    return Outcome({"model": Output(result.model.relative_to(work.folder).as_posix())}, figures)


def _trained(work: Work, recipe: ScoreCnnRecipe, folder: Path) -> ScoreCnnResult:
    return train_score_cnn(
        work.inputs["images"],
        work.inputs["scores"],
        folder,
        recipe,
        fabric=work.fabric(),
        report=work.listener(lambda row: f"epoch {row['epoch']}: validation loss {row['loss']:.4f}"),
        note=work.note,
    )


def below_floor(result: ScoreCnnResult, floor: float | None) -> str:
    """Which of eyes, mouth and pose the network reads worse than `floor`, in words; empty when none."""
    if floor is None:
        return ""
    found = {name: result.figures.get(f"{name}_score_corr") for name in PROPERTIES}
    low = [
        f"{name} {'none' if value is None else f'{value:.2f}'}"
        for name, value in found.items()
        if not (value or 0) >= floor
    ]
    return f"the held-out correlation of {', '.join(low)} is below {floor:g}" if low else ""


def rescored(work: Work) -> Outcome:
    """The CNN's own scores of its training pictures: the labels of v3, v4 and v5."""
    images = work.inputs["images"]
    result = rescore(
        images,
        work.inputs["model"],
        work.folder,
        scores=work.inputs["scores"],
        advance=work.counter(len(numbered_images(images))),
        **work.compute,
    )
    if result.failed:
        number, why = next(iter(result.failed.items()))
        raise InvalidInputError(f"{len(result.failed)} pictures could not be scored, number {number}: {why}")
    correlations = list(result.correlations.items())
    work.shown.table("CNN against the scores it learned", ("score", "correlation"), correlations)
    figures = {"counts": {"rescored": result.pictures}, "correlations": result.correlations}
    return Outcome({"scores": Output(result.table.name)}, figures)


def merged_cnn(work: Work) -> Outcome:
    model = merge_cnns(work.inputs["property"], work.inputs["hairstyle"], work.folder)
    return Outcome({"model": Output(model.name)}, {"outputs": len(PROPERTY_COLUMNS) + len(HAIRSTYLE_COLUMNS)})


def epoch_detail(path: Path) -> dict[str, list[Any]]:
    """Columns of a log of epochs."""
    with path.open(newline="") as file:
        return columns_of(list(csv.DictReader(file)))


def columns_of(table: Sequence[Mapping[str, str]]) -> dict[str, list[Any]]:
    """Columns of numbers; an empty cell is None."""
    columns: dict[str, list[Any]] = {}
    for name in table[0] if table else ():
        with contextlib.suppress(ValueError):
            columns[name] = [float(row[name]) if row[name] else None for row in table]
    return columns
