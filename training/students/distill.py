"""Stage `distill`: teach a light student the teacher's hair maps (docs/spec/segmentation.md, section 6).

Recipes are rows of `recipes.PRESETS`; the loop (`loop`) is the same for all. Every random choice is
keyed by (seed, epoch, item), so a killed run resumes to the weights an uninterrupted one gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ohlora.base.atomic import make_folder, write_bytes
from ohlora.errors import InvalidInputError
from ohlora.photos.segmentation import resize_area
from ohlora.training.data.hair_faces import LabelledPicture, to_tensor_layout
from ohlora.training.nets.effisegnet import DOCUMENTED_ENCODER, SIZE, EffiSegNet
from ohlora.training.students.loop import STUDENT, Lesson, train
from ohlora.training.students.losses import LOSSES
from ohlora.training.students.metrics import HairMetrics
from ohlora.training.students.recipes import PRESETS, DistillConfig, PortraitMix, parse_phases, preset
from ohlora.training.students.sources import (
    REAL,
    Note,
    Sources,
    Split,
    epoch_order,
    find_sources,
    make_split,
    training_batches,
)
from ohlora.training.weights.student import documented_encoder_state, imagenet_encoder_state, load_student


class Metrics(Protocol):
    """Figures of some pictures, pooled and by face."""

    def summary(self) -> dict[str, float]: ...

    def per_face_iou(self) -> NDArray[np.float64]: ...


# Indices of pictures -> (loss, figures).
Measure = Callable[[NDArray[np.int64]], tuple[float, Metrics]]

__all__ = [
    "PRESETS", "DistillConfig", "PortraitMix", "Sources", "Split", "evaluate", "find_sources", "make_split",
    "parse_phases", "preset", "run",
]  # fmt: skip


@torch.no_grad()
def evaluate(
    model: EffiSegNet, faces: Sequence[LabelledPicture], indices: NDArray[np.int64], loss: str, device: torch.device
) -> tuple[float, HairMetrics]:
    """Validation loss per pixel and metrics on whole pictures at 224, in evaluation mode."""
    model.eval()
    metrics, total = HairMetrics(), 0.0
    for start in range(0, len(indices), 8):
        pairs = [faces[i].read() for i in indices[start : start + 8]]
        image = torch.from_numpy(np.stack([to_tensor_layout(resize_area(p[0], (SIZE, SIZE))) for p in pairs])).to(
            device
        )
        label = torch.from_numpy(np.stack([resize_area(p[1], (SIZE, SIZE))[None] / np.float32(255) for p in pairs])).to(
            device
        )
        logits = model.logits(image.contiguous(memory_format=torch.channels_last)).float()
        total += float(LOSSES[loss](logits, label))
        for probability, truth in zip(torch.sigmoid(logits), label, strict=True):
            metrics.add(probability[0].cpu().numpy(), truth[0].cpu().numpy())
    return total / (SIZE * SIZE) / max(len(indices), 1), metrics


def build_model(config: DistillConfig) -> EffiSegNet:
    torch.manual_seed(config.seed)
    if config.start_from:
        return load_student(Path(config.start_from), drop_path=config.drop_path)
    return new_student(config)


def new_student(config: DistillConfig, outputs: int = 1) -> EffiSegNet:
    """An untrained student with the encoder weights that the recipe starts from."""
    model = EffiSegNet(config.encoder, outputs, drop_path=config.drop_path)
    if config.encoder_weights:
        if config.encoder != DOCUMENTED_ENCODER:
            raise InvalidInputError(f"--encoder-weights are those of {DOCUMENTED_ENCODER}, not of '{config.encoder}'")
        documented_encoder_state(Path(config.encoder_weights), model.encoder)
    elif config.imagenet:
        model.encoder.load_state_dict(imagenet_encoder_state(config.encoder, model.encoder))
    return model


def run(
    data: list[Path],
    out: Path,
    config: DistillConfig,
    *,
    resume: bool = True,
    accelerator: str = "auto",
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """Train, keep the best, measure. `report` gets one row per epoch, `note` what takes long. Returns the final report.

    The best epoch is the one of the least held-out loss; with portraits mixed in, of the least mean of the loss on
    real pictures and that on drawn ones (itself the mean of theirs). With no real picture held out (holdout 0) the
    last epoch is kept.
    Writes to `out`: student.safetensors (best, averaged weights), last.pt (resume state), log.jsonl,
    valid_loss.csv, report.json. Raises InvalidInputError for unusable data or a folder of another recipe.
    """
    make_folder(out)
    sources = find_sources(data, out, config, note)

    def loss(logits: Tensor, label: Tensor) -> Tensor:
        return LOSSES[config.loss](logits, label) / label.numel()

    lesson = Lesson(
        pictures=len(epoch_order(sources, config, 0)),
        batches=lambda epoch: training_batches(sources, config, epoch),
        loss=loss,
        validate=lambda model, device: validate(model, sources, config, device),
        choosing=all(len(split.valid) for split in sources.splits.values()),
    )
    identity, model = run_identity(config, sources), build_model(config)
    state, device = train(model, lesson, config, out, identity, resume=resume, accelerator=accelerator, report=report)
    return finish(out, config, sources, state, device)


def run_identity(config: DistillConfig, sources: Sources) -> str:
    """What a resumed run must share with the one that was stopped."""
    content = {"config": config.as_dict(), "pictures": sources.files}
    if sources.origin:
        content["drawn"] = sources.origin
    return json.dumps(content, sort_keys=True)


def validate(model: EffiSegNet, sources: Sources, config: DistillConfig, device: torch.device) -> dict[str, Any]:
    """The held-out part of an epoch's row: figures of the real pictures, `sources` with those of each kind when there
    are several, and `valid_loss`, which chooses the epoch; {} where nothing is held out.
    """
    return held_out_row(sources, lambda indices: evaluate(model, sources.pictures, indices, config.loss, device))


def held_out_row(sources: Sources, measure: Measure) -> dict[str, Any]:
    """What `validate` returns, from any measure of some pictures."""
    losses: dict[str, float] = {}
    figures: dict[str, dict[str, float]] = {}
    for name, split in sources.splits.items():
        if len(split.valid):
            losses[name], metrics = measure(split.valid)
            figures[name] = metrics.summary()
    row: dict[str, Any] = {}
    drawn = [loss for name, loss in losses.items() if name != REAL]
    if REAL in losses:
        row["valid_loss"] = float(np.mean([losses[REAL], np.mean(drawn)])) if drawn else losses[REAL]
        row.update(figures[REAL])
    if drawn:
        row["sources"] = {name: {"valid_loss": losses[name], **figures[name]} for name in losses}
    return row


def finish(
    out: Path, config: DistillConfig, sources: Sources, state: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """Measure the kept weights on the test pictures; write report.json."""
    student = load_student(out / STUDENT).to(device)
    return write_result(
        out, config, sources, state, lambda indices: evaluate(student, sources.pictures, indices, config.loss, device)
    )


def write_result(
    out: Path, config: DistillConfig, sources: Sources, state: dict[str, Any], measure: Measure
) -> dict[str, Any]:
    """report.json of a finished run, and its content.

    `test` and `test_faces` are those of the real pictures; with drawn ones, `sources` has the same for every kind.
    """
    parts: dict[str, dict[str, Any]] = {}
    for name, split in sources.splits.items():
        sizes = {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)}
        parts[name] = {"pictures": sizes}
        if len(split.test):
            _, metrics = measure(split.test)
            names = [sources.pictures[i].name for i in split.test]
            parts[name]["test"] = metrics.summary()
            parts[name]["test_faces"] = dict(zip(names, metrics.per_face_iou().round(4).tolist(), strict=True))
    result: dict[str, Any] = {
        "config": config.as_dict(),
        "epochs": state["epoch"],
        "best_epoch": state["best_epoch"],
        "train_seconds": round(state["seconds"], 1),
        **parts[REAL],
    }
    if sources.drawn:
        result["sources"] = parts
    write_bytes(out / "report.json", (json.dumps(result, indent=1) + "\n").encode())
    return result
