"""Stage `parsing`: teach the light student all eleven classes of a face from a teacher's class maps.

Network, loop, sources and split are those of `distill`; label, loss and figures are those of class maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ohlora.base.atomic import make_folder
from ohlora.errors import InvalidInputError
from ohlora.photos.segmentation import resize_area
from ohlora.training.data.hair_faces import LabelledPicture, to_tensor_layout
from ohlora.training.data.parsing_classes import HAIR
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.students.distill import held_out_row, new_student, run_identity, write_result
from ohlora.training.students.loop import STUDENT, Lesson, train
from ohlora.training.students.parsing.examples import CLASSES, class_example, class_shares
from ohlora.training.students.parsing.faces import find_parsed_faces, with_classes
from ohlora.training.students.parsing.metrics import ParsingMetrics
from ohlora.training.students.parsing.recipes import ParsingConfig
from ohlora.training.students.sources import (
    REAL,
    Note,
    Sources,
    drawn_pictures,
    epoch_order,
    join_sources,
    make_split,
    training_batches,
)
from ohlora.training.weights.student import load_student

BATCH = 8
RAREST = 1e-4  # share of the pixels: rarer classes (or absent ones) weigh no more


def class_weights(pictures: Sequence[LabelledPicture], indices: NDArray[np.int64], balance: float) -> Tensor:
    """Weight of each class, float32 [11], from how often it occurs in these pictures."""
    counts = np.zeros(CLASSES, np.float64)
    for index in indices:
        counts += np.bincount(pictures[index].read()[1].ravel(), minlength=CLASSES)
    share = counts / counts.sum()
    weights = np.maximum(share, RAREST) ** -balance
    return torch.from_numpy(weights / (weights * share).sum()).float()


def class_loss(logits: Tensor, shares: Tensor, weights: Tensor, kind: str) -> Tensor:
    """Weighed cross-entropy per pixel: logits and shares [N,C,H,W], weights [C]. kind: "soft_ce" or "hard_ce"."""
    target = shares if kind == "soft_ce" else shares.argmax(1)
    pixels = shares.shape[0] * shares.shape[2] * shares.shape[3]
    return F.cross_entropy(logits, target, weight=weights, reduction="sum") / pixels


@torch.no_grad()
def evaluate(
    model: EffiSegNet,
    faces: Sequence[LabelledPicture],
    indices: NDArray[np.int64],
    loss: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
) -> tuple[float, ParsingMetrics]:
    """Loss and figures on whole pictures at 224, in evaluation mode."""
    model.eval()
    metrics, total = ParsingMetrics(), 0.0
    for start in range(0, len(indices), BATCH):
        samples = [faces[i].read() for i in indices[start : start + BATCH]]
        image = np.stack([to_tensor_layout(resize_area(sample[0], (SIZE, SIZE))) for sample in samples])
        shares = np.stack([class_shares(sample[1], SIZE) for sample in samples])
        batch = torch.from_numpy(image).to(device).contiguous(memory_format=torch.channels_last)
        logits = model.logits(batch).float()
        total += float(loss(logits, torch.from_numpy(shares).to(device))) * len(samples)
        found = logits.argmax(1).to(torch.uint8).cpu().numpy()
        for ids, truth in zip(found, shares.argmax(1).astype(np.uint8), strict=True):
            metrics.add(ids, truth)
    return total / max(len(indices), 1), metrics


def build_parser(config: ParsingConfig) -> EffiSegNet:
    """A student of eleven classes: new, from a parsing student, or from a hair student, whose head becomes the hair
    class's while the other classes' start anew. Raises CheckpointError for a student of other classes.
    """
    torch.manual_seed(config.seed)
    if not config.start_from:
        return new_student(config, CLASSES)
    source = load_student(Path(config.start_from), drop_path=config.drop_path, outputs=None)
    if source.outputs != 1:
        return load_student(Path(config.start_from), drop_path=config.drop_path, outputs=CLASSES)
    model = EffiSegNet(source.encoder_name, CLASSES, drop_path=config.drop_path)
    state = source.state_dict()
    head = model.decoder.head.weight.detach().clone()
    head[HAIR] = state["decoder.head.weight"][0]
    model.load_state_dict({**state, "decoder.head.weight": head})
    return model


def find_sources(data: list[Path], out: Path, config: ParsingConfig, note: Note) -> Sources:
    """Real pictures with class maps and, where the recipe mixes them in, drawn ones with their true classes."""
    real = find_parsed_faces(data)
    drawn = drawn_pictures(config.mix, out, note, with_classes) if config.mix else ()
    return join_sources(real, [face.picture.name for face in real], make_split(real, config), drawn)


def run(
    data: list[Path],
    out: Path,
    config: ParsingConfig,
    *,
    resume: bool = True,
    accelerator: str = "auto",
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    note: Note = lambda text: None,
) -> tuple[dict[str, Any], Sources]:
    """Train, keep the best epoch, measure; returns the report and what it was measured on.

    `report` gets one row an epoch, `note` what takes long. Files and resume are those of `distill.run`; the same
    folders, holdout and seed hold out the same people. Raises InvalidInputError for unusable data or a folder of
    another run.
    """
    make_folder(out)
    sources = find_sources(data, out, config, note)
    real = sources.splits[REAL]
    if not len(real.train):
        raise InvalidInputError(
            "nothing to train on: the split left no real picture; use more pictures or a lower --holdout"
        )
    weights = class_weights(sources.pictures, real.train, config.balance)

    def loss(logits: Tensor, shares: Tensor) -> Tensor:
        return class_loss(logits, shares, weights.to(logits.device), config.loss)

    lesson = Lesson(
        pictures=len(epoch_order(sources, config, 0)),
        batches=lambda epoch: training_batches(sources, config, epoch, class_example),
        loss=loss,
        validate=lambda model, device: held_out_row(
            sources, lambda indices: evaluate(model, sources.pictures, indices, loss, device)
        ),
        choosing=all(len(split.valid) for split in sources.splits.values()),
    )
    identity, model = run_identity(config, sources), build_parser(config)
    state, device = train(model, lesson, config, out, identity, resume=resume, accelerator=accelerator, report=report)
    student = load_student(out / STUDENT, outputs=CLASSES).to(device)
    result = write_result(
        out, config, sources, state, lambda indices: evaluate(student, sources.pictures, indices, loss, device)
    )
    return result, sources
