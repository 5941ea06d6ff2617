"""Stages that make pictures, have them labelled, and choose among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.base.atomic import atomic_path, make_folder, write_bytes
from ohlora.base.types import Rgb
from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.io.contact_sheet import contact_sheet
from ohlora.io.images import encode_image, read_image
from ohlora.io.marking import Mark, read_mark
from ohlora.io.numbered_images import numbered_images
from ohlora.scores.table import read_score_table
from ohlora.training import checkpoints
from ohlora.training.cnn.filtering import filter_pictures
from ohlora.training.cnn.recipes import FilterRecipe, parse_rule
from ohlora.training.cnn.scoring import merge, predict
from ohlora.training.data.generated_faces import open_generator, require_following
from ohlora.training.data.labels import LabelLayout, Labels, read_labels, write_labels
from ohlora.training.directions.reader import save_reader
from ohlora.training.finetune.inputs import STYLEGAN_DISCRIMINATORS, load_discriminator, load_generator
from ohlora.training.nets.stylegan import Generator
from ohlora.training.pipeline.graph import External
from ohlora.training.pipeline.manifest import Output
from ohlora.training.pipeline.portrait_labels import ATTRIBUTES, NAMES, labels_of_seeds, shares_of_files, train_labeller
from ohlora.training.pipeline.work import Outcome, Work
from ohlora.training.sampling.recipes import preset
from ohlora.training.sampling.sample import sample_images

GRID = 32  # pictures of a grid
COLUMNS = 8
CELL = 128
V1_ATTRIBUTES = ("quality", "gender")
LABEL_COMMAND = "label the pictures with `ohlora train label {run}/{stage}/images`, made by `--until {stage}`"
# What a table of labels is called, by the section's source.
TITLES = {
    "file": "Labels of a person",
    "portraits": "Labels: what the portraits show",
    "reader": "Labels of a network that learned from portraits",
}


# The generator everything starts from


def original_files(sections: Mapping[str, Any]) -> Iterable[External]:
    section = sections["original"]
    made_by = (
        "take stylegan_model.pth of the documents, train one with `ohlora train gan`, or set original.source: bundle"
    )
    if section.source == "checkpoint":
        yield External("original.checkpoint", made_by, load_generator)
        if section.discriminator is not None:
            yield External("original.discriminator", made_by, load_discriminator)
    elif section.bundle != "demo":
        yield External("original.bundle", "build one with `ohlora bundle build`")


def original(work: Work) -> Outcome:
    """The networks as our own files, whatever they came from."""
    section, folder = work.section, make_folder(work.folder / "networks")
    source = section.bundle if section.source == "bundle" else Path(section.checkpoint)
    generator = load_generator(source, smooth=section.smooth and section.source != "bundle")
    checkpoints.save(generator, folder / "generator.safetensors", "stylegan")
    own = has_discriminator(section)
    if own:
        other = section.discriminator is None  # in the generator's file
        discriminator = load_discriminator(
            Path(section.checkpoint if other else section.discriminator), smooth=section.smooth and other
        )
        checkpoints.save(discriminator, folder / "discriminator.safetensors", "discriminator")
    return Outcome(
        {"generator": Output("networks/generator.safetensors"), "networks": Output("networks", "*.safetensors")},
        {
            "resolution": generator.config.resolution,
            "parameters": sum(p.numel() for p in generator.parameters()),
            "discriminator": "its own" if own else "none",
        },
    )


def has_discriminator(section: Any) -> bool:
    """Whether the original comes with one; False also where its file is missing, which is said elsewhere."""
    if section.source == "bundle" or section.checkpoint is None:
        return False
    path = Path(section.checkpoint)
    return section.discriminator is not None or (path.suffix != ".safetensors" and holds_discriminator(path))


def holds_discriminator(path: Path) -> bool:
    """Whether a published weights file has a StyleGAN discriminator beside its generator."""
    try:
        checkpoints.recognise(path, STYLEGAN_DISCRIMINATORS)
    except CheckpointError:
        return False
    return True


# Pictures


def sample(work: Work) -> Outcome:
    """Numbered pictures: the documented set that the stage is named after, with the section's values."""
    folder, generator = work.folder / "images", checkpoints.load_as(Generator, "stylegan", work.inputs["generator"])
    settings = preset(
        "original-10k" if "sample_10k" in work.settings else "finetune-v1-15k",
        **work.section.model_dump(),
        labels="normal" if generator.config.label_size else "none",
    )
    result = sample_images(
        generator,
        folder,
        settings,
        accelerator=work.machine.accelerator,
        advance=work.counter(settings.count),
    )
    grid(work, "the first pictures", list(numbered_images(folder).values())[:GRID])
    return Outcome(
        {"images": Output("images", "*.jpg"), "samples": Output("images/samples.safetensors")},
        {"counts": {"sampled": result.count}, "mixed": result.mixed},
    )


# Labels


def label_files(name: str, stage: str, attributes: Sequence[str]) -> Callable[[Mapping[str, Any]], Iterable[External]]:
    """The person's labels of a section, which have to fit the pictures that `stage` makes."""

    def files(sections: Mapping[str, Any]) -> Iterable[External]:
        section, count = sections[name], sections[stage.replace("-", "_")].count
        if section.source == "file":
            made_by = LABEL_COMMAND.format(run="RUN", stage=stage)
            yield External(f"{name}.file", made_by, lambda path: checked_labels(path, range(count), attributes))

    return files


def labels(work: Work) -> Outcome:
    """A person's, what portraits show, or a network's that learned from portraits; with figures of the latter."""
    section, images = work.section, numbered_images(work.inputs["images"])
    layout: LabelLayout = "v1" if "labels_v1" in work.settings else "v3"
    names = V1_ATTRIBUTES if layout == "v1" else NAMES
    right: dict[str, Any] = {}
    if section.source == "file":
        given = checked_labels(Path(section.file), images, names)
    elif section.source == "portraits":
        first = work.settings["sample_10k"].first_seed
        if not section.unchecked:
            require_following(open_generator(work.inputs["generator"]), first, what="the original")
        given = labels_of_seeds(first, min(section.count, len(images)), names)
    else:
        network, right = train_labeller(section.reader(), work.note)
        save_reader(work.folder / "reader.safetensors", network)
        chosen = dict(list(images.items())[: section.count])
        share = shares_of_files(network, list(chosen.values()))
        values = {name: (share[:, i] >= 0.5).astype(np.float64) for i, name in enumerate(names)}
        given = Labels(np.array(list(chosen)), values)
    kept = Labels(given.numbers, {name: given.of(name) for name in names})
    write_labels(work.folder / "labels.csv", kept, layout)
    meaning = {a.name: a.shows for a in ATTRIBUTES} if section.source != "file" else {}
    columns = ["attribute", "1 stands for", "pictures", "share"]
    shares = {name: float(kept.of(name).mean()) for name in names}
    rows: list[list[Any]] = [[n, meaning.get(n, ""), int(kept.of(n).sum()), shares[n]] for n in names]
    if right:
        columns += ["reader: accuracy on portraits", "AUROC"]
        rows = [[*row, right[row[0]]["accuracy"], right[row[0]]["auroc"]] for row in rows]
    work.shown.table(TITLES[section.source], columns, rows)
    figures = {"counts": {"labelled": len(kept)}, "source": section.source, "shares": shares}
    return Outcome({"labels": Output("labels.csv")}, figures)


def checked_labels(path: Path, images: Container[int], attributes: Sequence[str]) -> Labels:
    """A person's labels of pictures with these numbers.

    Raises InvalidInputError for a number that is not among them.
    """
    labels = read_labels(path)
    for name in attributes:
        labels.of(name)
    foreign = [int(number) for number in labels.numbers if int(number) not in images]
    if foreign:
        raise InvalidInputError(
            f"{path} labels picture {foreign[0]}{f' and {len(foreign) - 1} more' if len(foreign) > 1 else ''}, which "
            "is not sampled: these are labels of other pictures"
        )
    return labels


# Classify, filter


def classify(work: Work) -> Outcome:
    """Predictions of the classifiers for what has no label, joined with the labels."""
    images, labels = work.inputs["images"], work.inputs["labels"]
    attributes = tuple(name for name in NAMES if name in work.inputs)
    tables: dict[str, Any] = {}
    failed: dict[int, str] = {}
    for name in attributes:
        work.note(f"classifier {name}")
        done = predict(
            name,
            images,
            work.inputs[name],
            work.folder,
            labels=labels,
            advance=work.counter(len(numbered_images(images))),
            **work.compute,
        )
        tables[name] = done.table
        failed |= done.failed
    scores = merge(images, tables, work.folder / "scores.csv", labels=labels)
    table = read_score_table(scores)
    known = read_labels(labels).numbers
    predicted = ~np.isin(table.numbers, known)
    for name in attributes:
        work.shown.histogram(f"{name}, predicted", table.column(f"{name}_score")[predicted])
    figures = {
        "counts": {"labelled": int((~predicted).sum()), "predicted": int(predicted.sum()), "unreadable": len(failed)},
        "mean_predicted": {n: float(np.nanmean(table.column(f"{n}_score")[predicted])) for n in attributes},
    }
    return Outcome({"scores": Output("scores.csv")}, figures)


def filtered(work: Work) -> Outcome:
    section, folder = work.section, work.folder / "images"
    recipe = FilterRecipe(tuple(parse_rule(rule) for rule in section.rules))
    labels = None if section.keep_labelled else work.inputs["labels"]
    done = filter_pictures(work.inputs["scores"], work.inputs["images"], folder, recipe, labels=labels)
    rules = [[name, count, done.only.get(name)] for name, count in done.rejects.items()]
    work.shown.table("Rules", ("rule", "rejects", "alone"), rules)
    grid(work, "kept", list(numbered_images(folder).values())[:GRID])
    figures = {"counts": {"pictures": done.pictures, "kept": done.kept}, "rejects": dict(done.rejects)}
    return Outcome({"images": Output("images", "*.jpg")}, figures)


# Pictures of a report


def grid(work: Work, title: str, paths: Sequence[Path]) -> None:
    """A sheet of pictures beside the stage's results."""
    images = [read_image(path) for path in paths]
    if images:
        sheet = contact_sheet(images, columns=COLUMNS, cell=min(CELL, max(*images[0].shape[:2], 32)))
        show(work, title, sheet, read_mark(paths[0]))


def show(work: Work, title: str, picture: Rgb, mark: Mark | None) -> None:
    """grid.jpg, in the stage's folder and in the report."""
    write_bytes(work.folder / "grid.jpg", encode_image(picture, "jpeg", 90, mark=mark))
    work.shown.picture(title, "grid.jpg")


def link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where links are not possible."""
    make_folder(target.parent)
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another device, or a file system without links
            temporary.write_bytes(source.read_bytes())
