"""The documented comparison of distillation losses: one recipe, one start, one split; a table beside the published one.

See docs/spec/segmentation.md, section 6. Each loss is a run of `distill` in a folder of its own, so a
stopped comparison goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.atomic import make_folder, write_bytes, write_csv, write_json
from ohlora.errors import InvalidInputError
from ohlora.io.images import encode_image
from ohlora.training.data.hair_faces import LabelledPicture
from ohlora.training.students import distill
from ohlora.training.students.loop import STUDENT
from ohlora.training.students.metrics import LOSSES
from ohlora.training.students.recipes import DistillConfig
from ohlora.training.students.report import FIGURES, PUBLISHED, found_hair, overlay, tested, written
from ohlora.training.students.sources import REAL, Note
from ohlora.training.weights.student import load_student

TITLES = {"mse": "MSE", "soft_bce": "Soft BCE", "kl": "KL"}  # in the order of the published table
HEADINGS = ("MSE as published (a quarter)", "true MSE", "IoU", "Dice", "recall", "precision")
# What counts as the documented ordering. Published: 0.0001 between MSE and Soft BCE, 0.4 down to KL.
ALIKE, FAR, NEAR_ONE = 0.03, 0.1, 0.99


def compare(
    data: list[Path],
    out: Path,
    config: DistillConfig,
    *,
    losses: Sequence[str] = tuple(TITLES),
    shown: int = 4,
    resume: bool = True,
    accelerator: str = "auto",
    report: Callable[[str, dict[str, Any]], None] = lambda loss, row: None,
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """Train a student with each of `losses`, measure all on the same held-out pictures; returns the comparison.

    Writes to `out`: comparison.json, comparison.csv, comparison.md, and below LOSS/ the run with overlays/ of the first
    `shown` test pictures. report gets one row an epoch with the loss's name. Raises InvalidInputError for unknown
    losses or a recipe that holds nothing out, before anything is trained.
    """
    unknown = [name for name in losses if name not in LOSSES]
    if unknown or len(set(losses)) != len(losses) or not losses:
        raise InvalidInputError(
            f"losses to compare must be different ones of {', '.join(LOSSES)}, got {', '.join(losses)}"
        )
    if config.holdout <= 0:
        raise InvalidInputError("a comparison needs held-out pictures: give a --holdout above 0")
    make_folder(out)
    runs: dict[str, dict[str, Any]] = {}
    for name in losses:
        note(f"loss {TITLES[name]}")
        runs[name], sources = distill.run(
            data,
            out / name,
            replace(config, loss=name),
            resume=resume,
            accelerator=accelerator,
            report=partial(report, name),
            note=note,
        )
        faces = {picture.name: picture for picture in sources.pictures}
        first = [faces[face] for face in list(runs[name]["test_faces"])[:shown]]
        write_overlays(make_folder(out / name / "overlays"), out / name / STUDENT, first)
    result: dict[str, Any] = {
        "recipe": {key: value for key, value in config.as_dict().items() if key != "loss"},
        "rows": [row for name, run in runs.items() for row in rows_of(name, run)],
        "seconds": {name: run["train_seconds"] for name, run in runs.items()},
        "ordering": ordering({name: run["test"] for name, run in runs.items()}),
    }
    write_json(out / "comparison.json", result)
    write_csv(out / "comparison.csv", csv_rows(result["rows"]))
    write_bytes(out / "comparison.md", ("\n".join(as_markdown(result)) + "\n").encode())
    return result


def rows_of(loss: str, run: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a source: our figures, and the published ones beside those of real pictures."""
    rows = []
    for source, part in tested(run).items():
        row: dict[str, Any] = {"loss": loss, "pictures": source, "faces": int(part["test"]["faces"])}
        row |= {figure: part["test"][figure] for figure in FIGURES}
        if source == REAL and loss in PUBLISHED:
            row |= {f"documented_{figure}": v for figure, v in zip(FIGURES, PUBLISHED[loss], strict=True)}
        rows.append(row)
    return rows


def ordering(tests: dict[str, dict[str, float]]) -> dict[str, bool] | None:
    """Whether the documented ordering holds on real pictures, point by point; None when a loss was left out."""
    if set(tests) < set(TITLES):
        return None
    mse, bce, kl = (tests[name] for name in TITLES)
    points = {
        "mse_and_soft_bce_are_alike": abs(mse["iou"] - bce["iou"]) <= ALIKE,
        "kl_is_far_below": kl["iou"] <= min(mse["iou"], bce["iou"]) - FAR,
        "kl_recall_is_near_1": kl["recall"] >= NEAR_ONE,
        "kl_precision_is_low": kl["precision"] <= min(mse["precision"], bce["precision"]) - FAR,
    }
    return {**points, "holds": all(points.values())}


def csv_rows(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """Heading, then a row a source; empty where nothing is documented."""
    columns = ["loss", "pictures", "faces", *FIGURES, *(f"documented_{figure}" for figure in FIGURES)]
    cells = ([row.get(column) for column in columns] for row in rows)
    return [columns, *([f"{v:.6f}" if isinstance(v, float) else v for v in line] for line in cells)]


def table_rows(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Heading, then for every loss our figures and, where there are any, the documented ones below them."""
    table = [["loss", "measured on", *HEADINGS]]
    for row in rows:
        name = TITLES.get(row["loss"], row["loss"])
        table.append([name, f"{row['faces']} held out, {row['pictures']}", *(written(f, row[f]) for f in FIGURES)])
        if f"documented_{FIGURES[0]}" in row:
            table.append([name, "documented, 493 faces", *(written(f, row[f"documented_{f}"]) for f in FIGURES)])
    return table


def as_markdown(result: dict[str, Any]) -> list[str]:
    heading, *rows = (f"| {' | '.join(row)} |" for row in table_rows(result["rows"]))
    recipe = result["recipe"]
    return [
        "# Distillation losses",
        "",
        f"Encoder {recipe['encoder']}, phases {recipe['phases']}, seed {recipe['seed']}: one start, one split for all.",
        "",
        heading,
        "|---|---|" + "---|" * len(FIGURES),
        *rows,
        "",
        *verdict(result["ordering"]),
    ]


def verdict(points: dict[str, bool] | None) -> list[str]:
    """The ordering in words."""
    if points is None:
        return ["The documented ordering needs all three losses."]
    lines = [
        f"Documented ordering (MSE like Soft BCE, KL far below): {'holds' if points['holds'] else 'does not hold'}."
    ]
    return lines + [
        f"- {name.replace('_', ' ')}: {'yes' if ok else 'no'}" for name, ok in points.items() if name != "holds"
    ]


def write_overlays(folder: Path, student: Path, faces: Sequence[LabelledPicture]) -> None:
    """img_0000_original_x.jpg, ..._overlay_y_pred.jpg (colors alone) and ..._overlay_x_y_pred.jpg of each picture.

    Sky blue: true positive, green: false positive, blue: false negative.
    """
    model = load_student(student)
    for number, face in enumerate(faces):
        image, label, hair = found_hair(model, face)
        pictures = {"original_x": image, "overlay_y_pred": colors(label, hair)}
        for kind, picture in {**pictures, "overlay_x_y_pred": overlay(image, label, hair)}.items():
            write_bytes(folder / f"img_{number:04d}_{kind}.jpg", encode_image(picture, "jpeg", 95))


def colors(label: NDArray[np.uint8], hair: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Blue = label, green = student, without the picture."""
    none = np.zeros_like(label)
    return np.stack([none, np.clip(hair * 255, 0, 255).astype(np.uint8), label], axis=2)
