"""Stages that fine-tune the generator, and that measure what it changed."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.base.atomic import atomic_path, make_folder, write_bytes
from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed
from ohlora.io.images import encode_image
from ohlora.training import checkpoints
from ohlora.training.cnn.ensemble import Ensemble
from ohlora.training.data.portrait_faces import TRAIN_SEEDS, write_portraits
from ohlora.training.finetune.discriminator_start import train_discriminator
from ohlora.training.finetune.inputs import FineTuneInputs
from ohlora.training.finetune.property_test import EPOCH_GRID, TESTED, conditioning, label_grid
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.finetune.run import run_recipe
from ohlora.training.gan.data import to_images
from ohlora.training.loop.previews import sample_grid
from ohlora.training.nets.score_cnns import PropertyCnn
from ohlora.training.nets.stylegan import Generator
from ohlora.training.pipeline.exhibits import Exhibits
from ohlora.training.pipeline.graph import External, Outcome, Work
from ohlora.training.pipeline.machine import device_of, fabric_of, precision_of
from ohlora.training.pipeline.manifest import Output
from ohlora.training.pipeline.portrait_truth import NAMES
from ohlora.training.pipeline.sections import recipe_of, start_of
from ohlora.training.pipeline.stages.pictures import has_discriminator, open_generator
from ohlora.training.pipeline.stages.progress import rows

DRAWN_AT_ONCE = 16
SHOWN = 16
LOGS = ("train_log.csv", "train_log_{}.csv")
# Columns of the documented logs that are worth a curve, by title.
CURVES = {
    "losses": ("d_loss", "g_loss", "total_loss", "mse", "gender_loss", "loss"),
    "scores of the discriminator": ("real_scores_mean", "fake_scores_mean"),
    "updates of a batch": ("g_train_count", "d_train_count"),
    "classifiers": tuple(f"mean_{name}_score" for name in NAMES),
    "obeyed": ("eyes_corr", "mouth_corr", "pose_corr"),
}
MODEL_SUFFIX = ".safetensors"


class StoppedEarly(KeyboardInterrupt):
    """A training ended because a signal asked for it; its state is saved."""


def require_finished(result: Mapping[str, Any]) -> None:
    if result.get("stopped"):
        raise StoppedEarly


# The start discriminator


def discriminator_files(sections: Mapping[str, Any]) -> Iterable[External]:
    section = sections["discriminator"]
    if section.source == "folder" and not has_discriminator(sections["original"]):
        made_by = (
            "the original has no discriminator of its own: name a folder of the pictures it was trained on, or give "
            "original.discriminator"
        )
        yield External("discriminator.images", None if section.images is None else Path(section.images), made_by)


def discriminator(work: Work) -> Outcome:
    """The original's own, or one that learns to tell its pictures from real ones."""
    section = work.section("discriminator")
    own, target = work.inputs["networks"] / "discriminator.safetensors", work.folder / "discriminator.safetensors"
    outputs = {"discriminator": Output(target.name)}
    if own.is_file():
        link(own, target)
        return Outcome(outputs, {"made": "the original's own"})
    if section.source == "folder":
        images = Path(section.images)
    else:
        images = work.folder / "portraits"
        resolution = open_generator(work.inputs["generator"]).config.resolution
        write_portraits(images, count=section.portraits, resolution=resolution, first_seed=TRAIN_SEEDS.start)
    result = train_discriminator(
        work.inputs["generator"],
        images,
        work.folder,
        start_of(section),
        fabric=fabric_of(work),
        report=rows(work.note, lambda r: f"step {r['step']}: loss {r['d_loss']:.4f}" if r["event"] == "row" else ""),
    )
    require_finished(result)
    shown = Exhibits()
    curves(shown, work.folder / "train_log.csv", "step")
    figures = {"made": f"taught on {section.source}", "counts": {"steps": result["steps"]}}
    return Outcome(outputs, figures, exhibits=shown.as_dict())


def link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where links are not possible."""
    make_folder(target.parent)
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another device, or a file system without links
            temporary.write_bytes(source.read_bytes())


# Fine-tuning


def finetune(work: Work) -> Outcome:
    """One recipe, with what the stage's inputs give it."""
    name = next(iter(work.settings))
    recipe = recipe_of(name, work.section(name))
    assert isinstance(recipe, Recipe)
    gender = work.inputs.get("gender")
    inputs = FineTuneInputs(
        generator=work.inputs["generator"],
        discriminator=work.inputs.get("discriminator"),
        images=work.inputs.get("images"),
        scores=work.inputs.get("scores"),
        property_cnn=work.inputs.get("property_cnn"),
        gender_cnn=None if gender is None else gender / "gender_model_0.safetensors",
        monitor_models=gathered(work, work.folder / "monitor"),
    )
    result = run_recipe(
        recipe,
        inputs,
        work.folder,
        fabric=fabric_of(work),
        report=rows(work.note, training_line),
    )
    require_finished(result)
    outputs = {"generator": Output("generator.safetensors")}
    if (work.folder / "discriminator.safetensors").is_file():
        outputs["discriminator"] = Output("discriminator.safetensors")
    shown = Exhibits()
    for log in LOGS:
        curves(shown, work.folder / log.format(recipe.version))
    figures: dict[str, Any] = {
        "counts": {key: result[key] for key in ("pictures", "epochs", "steps") if result.get(key) is not None},
        "trained": trained_counts(result.get("trained")),
    }
    for key in ("best_epoch", "best_loss", "first_loss", "last_loss"):
        if result.get(key) is not None:
            figures[key] = result[key]
    if result.get("conditioning"):
        figures["last_test"] = result["conditioning"]
        shown.table(
            "Test after the last epoch",
            ("property", "correlation", "mean absolute error"),
            [[name, row["correlation"], row["mae"]] for name, row in result["conditioning"].items()],
        )
    return Outcome(outputs, figures, {"train_seconds": result.get("train_seconds")}, shown.as_dict())


def training_line(event: Mapping[str, Any]) -> str:
    """An event of a fine-tuning for people; empty for those without news."""
    if event.get("event") not in ("row", "epoch"):
        return ""
    parts = [f"epoch {event['epoch']}"] if "epoch" in event else []
    names = ("d_loss", "g_loss", "total_loss", "mse", "loss", "best_loss")
    parts += [f"{name} {event[name]:.4f}" for name in names if isinstance(event.get(name), float)]
    return ", ".join(parts)


def trained_counts(trained: Any) -> Any:
    """How many values of each network are trained, whatever else the report of a run says about them."""
    if not isinstance(trained, Mapping):
        return None
    return {name: value for name, value in trained.items() if isinstance(value, int | float | str | dict)}


def curves(shown: Exhibits, path: Path, x: str = "") -> None:
    """The columns of a documented log that are worth a look, over its rows; nothing without a log."""
    if not path.is_file():
        return
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    # Rows that stand for a whole epoch have no batch number; the others are one batch each.
    table = [row for row in table if row.get("batch_idx", "") != "-"] or table
    place = [float(row[x]) if x else float(i) for i, row in enumerate(table)]
    for title, names in CURVES.items():
        series = {name: [_value(row[name]) for row in table] for name in names if table and name in table[0]}
        if series and len(table) > 1:
            shown.curve(title, place, series, x or "logged batches")


def _value(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def gathered(work: Work, folder: Path) -> Path | None:
    """All classifiers that the stage is given, in one folder, as the monitor of v8 and v9 wants them."""
    given = [work.inputs[f"classifier_{name}"] for name in NAMES if f"classifier_{name}" in work.inputs]
    for models in given:
        for path in sorted(models.glob(f"*{MODEL_SUFFIX}")):
            link(path, folder / path.name)
    return folder if given else None


# Before and after


def measure(work: Work) -> Outcome:
    """The generator before and after a fine-tuning: does it obey its label, and what do the classifiers say."""
    section = work.section("measure")
    shown = Exhibits()
    effect: list[list[Any]] = []
    figures: dict[str, Any] = {}
    models = {when: open_generator(work.inputs[when]).to(device_of(work)) for when in ("before", "after")}
    if "property_cnn" in work.inputs:
        cnn = checkpoints.load("cnn-property", work.inputs["property_cnn"])
        assert isinstance(cnn, PropertyCnn)
        cnn.to(device_of(work))
        z = np.stack([face_from_seed(section.first_seed + i).z for i in range(section.latents)])
        found = {}
        for when, model in models.items():
            labels = label_grid(EPOCH_GRID, model.config.label_size)
            work.note(f"{when}: {len(z)} latents with {len(labels)} labels")
            found[when] = conditioning(model, cnn, z, labels)
        summary = {when: result.summary() for when, result in found.items()}
        for name in TESTED:
            for what in ("correlation", "mae"):
                effect.append([f"{name} {what}", *(summary[when][name][what] for when in models)])
        for i, name in enumerate(TESTED):
            shown.histogram(f"{name}: correlation of a latent, after", found["after"].correlation[:, i])
        figures["conditioning"] = summary
    folders = {name: work.inputs[f"classifier_{name}"] for name in NAMES if f"classifier_{name}" in work.inputs}
    drawn = {
        when: draw_seeds(model, section.first_seed, section.pictures if folders else SHOWN)
        for when, model in models.items()
    }
    for name, folder in folders.items():
        work.note(f"classifier {name}")
        ensemble = Ensemble.load(folder, name, accelerator=work.machine.accelerator, precision=precision_of(work))
        scores = {when: ensemble.score(images).mean(1) for when, images in drawn.items()}
        effect.append([f"mean {name} score", *(float(scores[when].mean()) for when in models)])
        for when, values in scores.items():
            shown.histogram(f"{name}, {when}", values)
    if not effect:
        raise InvalidInputError(f"stage {work.stage} has no network to measure with")
    columns = ("figure", "before", "after")
    shown.table("Measured", columns, effect)
    sheet = sample_grid(drawn["after"][:SHOWN], drawn["before"][:SHOWN])
    write_bytes(work.folder / "grid.jpg", encode_image(sheet, "jpeg", 90))
    shown.picture("the same latents before (above) and after (below)", "grid.jpg")
    figures["effect"] = effect
    figures["counts"] = {"latents": section.latents} if "property_cnn" in work.inputs else {}
    if folders:
        figures["counts"]["pictures"] = section.pictures
    return Outcome({"grid": Output("grid.jpg")}, figures, exhibits=shown.as_dict())


@torch.no_grad()
def draw_seeds(generator: Generator, first_seed: int, count: int) -> Rgb:
    """Pictures uint8 [count,R,R,3] of seeds, each with the random label of its seed where the generator takes one."""
    device, size, parts = generator.w_avg.device, generator.config.label_size, []
    for start in range(0, count, DRAWN_AT_ONCE):
        faces = [face_from_seed(first_seed + i, size) for i in range(start, min(start + DRAWN_AT_ONCE, count))]
        z: NDArray[np.float32] = np.stack([face.z for face in faces])
        label = torch.from_numpy(np.stack([face.label for face in faces])).to(device) if size else None
        parts.append(to_images(generator(torch.from_numpy(z).to(device), label, lod=0.0)))
    return np.concatenate(parts)
