"""Stages that find the parts of faces, score them, and train the networks that score."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.base.atomic import atomic_path, make_folder, remove_leftovers
from ohlora.errors import InvalidInputError
from ohlora.io.numbered_images import numbered_images
from ohlora.scores import ScoreResult, score_folder
from ohlora.scores.table import PROPERTY_COLUMNS, write_score_table
from ohlora.training.cnn.classifier import train_classifier
from ohlora.training.cnn.recipes import HAIRSTYLE_COLUMNS, ClassifierRecipe, ScoreCnnRecipe
from ohlora.training.cnn.regression import merge_cnns, train_score_cnn
from ohlora.training.cnn.rescore import rescore
from ohlora.training.pipeline.exhibits import Exhibits
from ohlora.training.pipeline.graph import External, Outcome, Work
from ohlora.training.pipeline.machine import fabric_of, precision_of
from ohlora.training.pipeline.manifest import Output
from ohlora.training.pipeline.maps import BundleTeacher, portrait_maps
from ohlora.training.pipeline.sections import recipe_of
from ohlora.training.pipeline.stages.pictures import grid
from ohlora.training.pipeline.stages.progress import counter, rows
from ohlora.training.teachers.parse import ParseSettings, parse_pictures
from ohlora.training.teachers.protocol import Labeller
from ohlora.training.teachers.registry import load_teacher

PARSING_PREFIX, OVERLAY_PREFIX = "parsing_", "parsing_visualization_"
TABLES = {"v1": "all_scores.csv", "v2": "all_scores_v2.csv"}
HAIRSTYLE_TABLE = "all_scores_ohlora_v3.csv"


# Class maps


def parse_files(name: str) -> Any:
    def files(sections: Mapping[str, Any]) -> Iterable[External]:
        section = sections[name]
        if section.source == "teacher":
            made_by = f"download FaceXFormer's model.pt or BiSeNet's 79999_iter.pth, or set {name}.source to bundle"
            yield External(f"{name}.teacher", None if section.teacher is None else Path(section.teacher), made_by)
        elif section.source in ("bundle", "hair") and section.bundle != "demo":
            yield External(f"{name}.bundle", Path(section.bundle), "build one with `ohlora bundle build`")

    return files


def parse(work: Work) -> Outcome:
    name = next(key for key in work.settings if key.startswith("parse"))
    section, folder = work.section(name), work.folder / "faces"
    images = numbered_images(work.inputs["images"])
    advance, shown = counter(work.note, len(images), "pictures"), Exhibits()
    failed: dict[str, int] = {}
    if section.source == "portraits":
        parsed = portrait_maps(images, work.section("sample_10k").first_seed, folder, advance)
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
                f"that fill the picture set {name}.variant: full-frame"
            )
        grid(work, shown, "class maps", list(numbered_images(folder, OVERLAY_PREFIX).values())[:16])
    figures = {"counts": {"parsed": parsed, **failed}, "source": section.source}
    return Outcome({"faces": Output("faces", "*.png")}, figures, exhibits=shown.as_dict())


# Property scores


def property_scores(work: Work) -> Outcome:
    """v1 and v2 scores of every parsed picture, and the pictures that have all of both."""
    images = pictures_with_maps(work)
    advance = counter(work.note, len(images), "pictures")
    result = score_folder(work.inputs["faces"], work.folder / "scores", ("v1", "v2"), pictures=images, advance=advance)
    require_varied(result)
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
    shown = Exhibits()
    shown.picture("raw scores of both algorithms", "scores/scores.png")
    figures = {
        "counts": {"parsed": len(images), "scored": len(kept), "without a score": len(images) - len(kept)},
        "v2_mean": dict(zip(PROPERTY_COLUMNS, result.statistics["v2"].mean.tolist(), strict=True)),
    }
    outputs = {name: Output(file) for name, file in TABLES.items()}
    return Outcome({**outputs, "images": Output("images", "*.jpg")}, figures, exhibits=shown.as_dict())


def hairstyle_scores(work: Work) -> Outcome:
    images = pictures_with_maps(work)
    result = score_folder(
        work.inputs["faces"],
        work.folder / "scores",
        ("hairstyle",),
        pictures=images,
        advance=counter(work.note, len(images), "pictures"),
    )
    require_varied(result)
    write_score_table(work.folder / HAIRSTYLE_TABLE, result.normalized["hairstyle"])
    shown = Exhibits()
    shown.picture("raw scores", "scores/scores.png")
    raw = result.raw["hairstyle"].values
    figures = {"counts": {"scored": result.scored}, "mean": float(raw.mean()), "deviation": float(raw.std(ddof=1))}
    return Outcome({"scores": Output(HAIRSTYLE_TABLE)}, figures, exhibits=shown.as_dict())


def pictures_with_maps(work: Work) -> dict[int, Path]:
    """Those of the stage's pictures in which a face was found."""
    maps = numbered_images(work.inputs["faces"], PARSING_PREFIX)
    return {number: path for number, path in numbered_images(work.inputs["images"]).items() if number in maps}


def require_varied(result: ScoreResult) -> None:
    """Raises InvalidInputError for pictures that could not be scored, and for a score that is the same for all."""
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


def keep_pictures(paths: Mapping[int, Path], folder: Path) -> None:
    """These pictures and no others in `folder`, as hard links where the file system has them."""
    remove_leftovers(make_folder(folder))
    names = {path.name for path in paths.values()}
    for other in folder.iterdir():
        if other.name not in names:
            other.unlink()
    for path in paths.values():
        target = folder / path.name
        if target.is_file() and target.stat().st_size == path.stat().st_size:
            continue
        with atomic_path(target) as temporary:
            try:
                os.link(path, temporary)
            except OSError:  # another device, or a file system without links
                temporary.write_bytes(path.read_bytes())


# Networks that score


def classifier(work: Work) -> Outcome:
    """One classifier, all folds."""
    name, section = next(iter(work.settings.items()))
    recipe = recipe_of(name, section)
    assert isinstance(recipe, ClassifierRecipe)
    recipe = replace(recipe, precision=precision_of(work))
    start = work.inputs.get("start")
    result = train_classifier(
        recipe.attribute,
        work.inputs["images"],
        work.inputs["labels"],
        work.folder,
        recipe,
        start_from=None if start is None else start / f"{recipe.attribute}_model_0.safetensors",
        fabric=fabric_of(work),
        report=rows(work.note, lambda r: f"fold {r['fold']}, epoch {r['epoch']}: validation loss {r['loss']:.4f}"),
        note=work.note,
    )
    shown, folds = Exhibits(), []
    details = [
        epoch_detail(work.folder / "log" / f"epoch_detail_{recipe.attribute}_{k}.csv") for k in range(recipe.folds)
    ]
    for k, detail in enumerate(details):
        best = result.best_epoch[k]
        kept = [k, result.success[k], result.min_val_loss[k], best, result.attempts[k]]
        folds.append([*kept, detail["val_accuracy"][best], detail["val_auroc"][best]])
    columns = ("fold", "success", "validation loss", "best epoch", "attempts", "accuracy", "AUROC")
    shown.table(f"Folds of {recipe.attribute}", columns, folds)
    longest = max(len(detail["val_loss"]) for detail in details)
    shown.curve(
        "validation loss",
        range(longest),
        {f"fold {k}": _padded(detail["val_loss"], longest) for k, detail in enumerate(details)},
        "epoch",
    )
    figures = {
        "counts": {"labelled": result.pictures, "folds": recipe.folds, "successful": sum(result.success)},
        "folds": [dict(zip(columns, row, strict=True)) for row in folds],
    }
    return Outcome({"models": Output("models", "*.safetensors")}, figures, exhibits=shown.as_dict())


def score_cnn(work: Work) -> Outcome:
    """The property or the hairstyle CNN."""
    name, section = next(iter(work.settings.items()))
    recipe = recipe_of(name, section)
    assert isinstance(recipe, ScoreCnnRecipe)
    recipe = replace(recipe, precision=precision_of(work))
    result = train_score_cnn(
        work.inputs["images"],
        work.inputs["scores"],
        work.folder,
        recipe,
        fabric=fabric_of(work),
        report=rows(work.note, lambda row: f"epoch {row['epoch']}: validation loss {row['loss']:.4f}"),
        note=work.note,
    )
    log = epoch_detail(work.folder / recipe.log_file)
    shown = Exhibits()
    losses = [column for column in log if column.startswith("val")]
    shown.curve("validation loss", log["epoch"], {column: log[column] for column in losses}, "epoch")
    correlations = {c: values for c, values in log.items() if c.endswith("_corr")}
    shown.curve("correlation, held out", log["epoch"], correlations, "epoch")
    figures = {
        "counts": {"pictures": result.pictures, "epochs": result.epochs},
        "best_epoch": result.best_epoch,
        "loss": result.loss,
        "best": dict(result.figures),
    }
    model = result.model.relative_to(work.folder).as_posix()
    return Outcome({"model": Output(model)}, figures, exhibits=shown.as_dict())


def rescored(work: Work) -> Outcome:
    """The CNN's own scores of its training pictures: the labels of v3, v4 and v5."""
    images = work.inputs["images"]
    advance = counter(work.note, len(numbered_images(images)), "pictures")
    result = rescore(
        images,
        work.inputs["model"],
        work.folder,
        scores=work.inputs["scores"],
        accelerator=work.machine.accelerator,
        precision=precision_of(work),
        advance=advance,
    )
    if result.failed:
        number, why = next(iter(result.failed.items()))
        raise InvalidInputError(f"{len(result.failed)} pictures could not be scored, number {number}: {why}")
    shown = Exhibits()
    shown.table("CNN against the scores it learned", ("score", "correlation"), list(result.correlations.items()))
    figures = {"counts": {"rescored": result.pictures}, "correlations": result.correlations}
    return Outcome({"scores": Output(result.table.name)}, figures, exhibits=shown.as_dict())


def merged_cnn(work: Work) -> Outcome:
    model = merge_cnns(work.inputs["property"], work.inputs["hairstyle"], work.folder)
    return Outcome({"model": Output(model.name)}, {"outputs": len(PROPERTY_COLUMNS) + len(HAIRSTYLE_COLUMNS)})


def epoch_detail(path: Path) -> dict[str, list[Any]]:
    """Columns of a log of epochs; an empty cell is None."""
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    columns: dict[str, list[Any]] = {}
    for name in table[0] if table else ():
        with contextlib.suppress(ValueError):
            columns[name] = [float(row[name]) if row[name] else None for row in table]
    return columns


def _padded(values: list[Any], length: int) -> list[Any]:
    return [*values, *[None] * (length - len(values))]
