"""Stages that fine-tune the generator, and that measure what it changed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError
from ohlora.faces import latents_of_seeds
from ohlora.io.marking import RENDERED
from ohlora.training import checkpoints
from ohlora.training.cnn.ensemble import Ensemble
from ohlora.training.data.portrait_faces import TRAIN_SEEDS, write_portraits
from ohlora.training.finetune.discriminator_start import train_discriminator
from ohlora.training.finetune.inputs import FineTuneInputs
from ohlora.training.finetune.property_test import EPOCH_GRID, conditioning, label_grid
from ohlora.training.finetune.recipes import EXPRESSIONS, Recipe
from ohlora.training.finetune.run import run_recipe
from ohlora.training.gan.data import to_images
from ohlora.training.loop.previews import sample_grid
from ohlora.training.nets.score_cnns import PropertyCnn
from ohlora.training.nets.stylegan import Generator
from ohlora.training.pipeline.graph import External
from ohlora.training.pipeline.manifest import Output
from ohlora.training.pipeline.portrait_labels import NAMES
from ohlora.training.pipeline.stages.pictures import has_discriminator, link, show
from ohlora.training.pipeline.stages.scores import columns_of
from ohlora.training.pipeline.work import Outcome, Work

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
        yield External("discriminator.images", made_by)


def discriminator(work: Work) -> Outcome:
    """The original's own, or one that learns to tell its pictures from real ones."""
    section, generator = work.section, work.inputs["generator"]
    own, target = work.inputs["networks"] / "discriminator.safetensors", work.folder / "discriminator.safetensors"
    outputs = {"discriminator": Output(target.name)}
    if own.is_file():
        link(own, target)
        return Outcome(outputs, {"made": "the original's own"})
    if section.source == "folder":
        images = Path(section.images)
    else:
        images = work.folder / "portraits"
        resolution = checkpoints.load_as(Generator, "stylegan", generator).config.resolution
        write_portraits(images, count=section.portraits, resolution=resolution, first_seed=TRAIN_SEEDS.start)
    report = work.listener(lambda r: f"step {r['step']}: loss {r['d_loss']:.4f}" if r["event"] == "row" else "")
    result = train_discriminator(generator, images, work.folder, work.recipe, fabric=work.fabric(), report=report)
    require_finished(result)
    curves(work, work.folder / "train_log.csv", "step")
    return Outcome(outputs, {"made": f"taught on {section.source}", "counts": {"steps": result["steps"]}})


# Fine-tuning


def finetune(work: Work) -> Outcome:
    """One recipe, with what the stage's inputs give it."""
    recipe: Recipe = work.recipe
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
    result = run_recipe(recipe, inputs, work.folder, fabric=work.fabric(), report=work.listener(training_line))
    require_finished(result)
    names = [name for name in ("generator", "discriminator") if (work.folder / f"{name}.safetensors").is_file()]
    for log in LOGS:
        curves(work, work.folder / log.format(recipe.version))
    figures: dict[str, Any] = {
        "counts": {key: result[key] for key in ("pictures", "epochs", "steps") if result.get(key) is not None},
        "trained": trained_counts(result.get("trained")),
    }
    for key in ("best_epoch", "best_loss", "first_loss", "last_loss"):
        if result.get(key) is not None:
            figures[key] = result[key]
    if result.get("conditioning"):
        figures["last_test"] = result["conditioning"]
        work.shown.table(
            "Test after the last epoch",
            ("property", "correlation", "mean absolute error"),
            [[name, row["correlation"], row["mae"]] for name, row in result["conditioning"].items()],
        )
    outputs = {name: Output(f"{name}.safetensors") for name in names}
    return Outcome(outputs, figures, {"train_seconds": result.get("train_seconds")})


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


def curves(work: Work, path: Path, x: str = "") -> None:
    """The columns of a documented log that are worth a look, over its rows; nothing without a log."""
    if not path.is_file():
        return
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    # Rows that stand for a whole epoch have no batch number; the others are one batch each.
    table = [row for row in table if row.get("batch_idx", "") != "-"] or table
    columns = columns_of(table)
    place = columns[x] if x else [float(i) for i in range(len(table))]
    for title, names in CURVES.items():
        series = {name: columns[name] for name in names if name in columns}
        if series and len(table) > 1:
            work.shown.curve(title, place, series, x or "logged batches")


def classifiers(work: Work) -> dict[str, Path]:
    """Folders of the classifiers that the stage is given, by attribute."""
    return {name: work.inputs[f"classifier_{name}"] for name in NAMES if f"classifier_{name}" in work.inputs}


def gathered(work: Work, folder: Path) -> Path | None:
    """All classifiers that the stage is given, in one folder, as the monitor of v8 and v9 wants them."""
    given = classifiers(work).values()
    for models in given:
        for path in sorted(models.glob("*.safetensors")):
            link(path, folder / path.name)
    return folder if given else None


# Before and after


def measure(work: Work) -> Outcome:
    """The generator before and after a fine-tuning: does it obey its label, and what do the classifiers say."""
    section, device = work.section, work.device
    effect: list[list[Any]] = []
    figures: dict[str, Any] = {"counts": {}}
    models = {
        when: checkpoints.load_as(Generator, "stylegan", work.inputs[when]).to(device) for when in ("before", "after")
    }
    if "property_cnn" in work.inputs:
        cnn = checkpoints.load_as(PropertyCnn, "cnn-property", work.inputs["property_cnn"]).to(device)
        z, _ = latents_of_seeds(range(section.first_seed, section.first_seed + section.latents))
        found = {}
        for when, model in models.items():
            labels = label_grid(EPOCH_GRID, model.config.label_size)
            work.note(f"{when}: {len(z)} latents with {len(labels)} labels")
            found[when] = conditioning(model, cnn, z, labels)
        summary = {when: result.summary() for when, result in found.items()}
        for i, name in enumerate(EXPRESSIONS):
            for what in ("correlation", "mae"):
                effect.append([f"{name} {what}", *(summary[when][name][what] for when in models)])
            work.shown.histogram(f"{name}: correlation of a latent, after", found["after"].correlation[:, i])
        figures |= {"conditioning": summary, "counts": {"latents": section.latents}}
    folders = classifiers(work)
    count = section.pictures if folders else SHOWN
    drawn = {when: draw_seeds(model, section.first_seed, count) for when, model in models.items()}
    for name, folder in folders.items():
        work.note(f"classifier {name}")
        ensemble = Ensemble.load(folder, name, **work.compute)
        scores = {when: ensemble.score(images).mean(1) for when, images in drawn.items()}
        effect.append([f"mean {name} score", *(float(scores[when].mean()) for when in models)])
        for when, values in scores.items():
            work.shown.histogram(f"{name}, {when}", values)
    if not effect:
        raise InvalidInputError(f"stage {work.stage} has no network to measure with")
    work.shown.table("Measured", ("figure", "before", "after"), effect)
    title = "the same latents before (above) and after (below)"
    show(work, title, sample_grid(drawn["after"][:SHOWN], drawn["before"][:SHOWN]), RENDERED)
    figures["effect"] = effect
    if folders:
        figures["counts"]["pictures"] = section.pictures
    return Outcome({"grid": Output("grid.jpg")}, figures)


@torch.no_grad()
def draw_seeds(generator: Generator, first_seed: int, count: int) -> Rgb:
    """Pictures uint8 [count,R,R,3] of seeds, each with the random label of its seed where the generator takes one."""
    device, size, parts = generator.w_avg.device, generator.config.label_size, []
    for start in range(0, count, DRAWN_AT_ONCE):
        seeds = range(first_seed + start, first_seed + min(start + DRAWN_AT_ONCE, count))
        z, label = (torch.from_numpy(values).to(device) for values in latents_of_seeds(seeds, size))
        parts.append(to_images(generator(z, label if size else None, lod=0.0)))
    return np.concatenate(parts)
