"""Stage `distill`: teach a light student the teacher's hair maps (spec: segmentation, section 6).

Recipes are rows of `distill_recipes.PRESETS`; the loop is the same for all. Every random choice is keyed by (seed,
epoch, item), so a killed run resumes to the weights an uninterrupted one gives.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from ohlora.atomic import atomic_path, make_folder, write_bytes
from ohlora.errors import BadRequest, OhloraError
from ohlora.hair import resize_area
from ohlora.training.data.hair_faces import LabelledPicture, to_tensor_layout
from ohlora.training.distill_recipes import PRESETS, DistillConfig, PortraitMix, parse_phases, preset
from ohlora.training.distill_sources import (
    REAL,
    Note,
    Sources,
    Split,
    epoch_order,
    find_sources,
    make_split,
    training_batches,
)
from ohlora.training.losses import LOSSES
from ohlora.training.metrics import HairMetrics
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.student import imagenet_encoder_state, load_student, save_student

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


class Average:
    """Exponential moving average of weights and buffers, with the usual warm start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[key].lerp_(value.detach(), 1 - decay)
            else:
                self.state[key].copy_(value)


def learning_rate_factor(config: DistillConfig, step: int, steps_per_epoch: int) -> float:
    """Warm-up, then cosine to 1 % of the base rate, or the documented 0.975 per epoch."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "exponential":
        return 0.975 ** (step // steps_per_epoch)
    done = (step - config.warmup_steps) / max(1, config.epochs * steps_per_epoch - config.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_model(config: DistillConfig) -> EffiSegNet:
    torch.manual_seed(config.seed)
    if config.start_from:
        return load_student(Path(config.start_from), drop_path=config.drop_path)
    model = EffiSegNet(config.encoder, drop_path=config.drop_path)
    if config.imagenet:
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
    valid_loss.csv, report.json. Raises BadRequest for unusable data or a folder of another recipe.
    """
    make_folder(out)
    sources = find_sources(data, out, config, note)
    identity = run_identity(config, sources)
    fabric = Fabric(accelerator=accelerator, devices=1)
    raw = build_model(config).to(memory_format=torch.channels_last)
    encoder = list(raw.encoder.parameters())
    groups = [
        {"params": encoder, "lr": config.learning_rate * config.encoder_rate},
        {"params": raw.decoder.parameters(), "lr": config.learning_rate},
    ]
    model, optimizer = fabric.setup(raw, torch.optim.AdamW(groups, weight_decay=config.weight_decay))
    model.mark_forward_method("logits")
    base_rates = [group["lr"] for group in optimizer.param_groups]
    average = Average(raw, config.ema)
    shadow = EffiSegNet(raw.encoder_name, drop_path=0.0).to(memory_format=torch.channels_last).to(fabric.device)
    state: dict[str, Any] = {"epoch": 0, "best": math.inf, "best_epoch": -1, "log": [], "seconds": 0.0}
    last = out / "last.pt"
    if resume and last.is_file():
        saved = torch.load(last, weights_only=True, map_location=fabric.device)
        if saved["identity"] != identity:
            raise BadRequest(f"{out} holds a run with another recipe or other pictures: choose another --out")
        raw.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average.state, average.steps = saved["average"], saved["average_steps"]
        state = saved["state"]
    steps_per_epoch = math.ceil(len(epoch_order(sources, config, 0)) / config.batch_size)
    best_file = out / "student.safetensors"
    choosing = all(len(split.valid) for split in sources.splits.values())

    while state["epoch"] < config.epochs:
        epoch, started, losses = state["epoch"], time.monotonic(), []
        torch.manual_seed(config.seed * 100003 + epoch)  # stochastic depth, the same after a resume
        model.train()
        for step, (image, label) in enumerate(training_batches(sources, config, epoch)):
            factor = learning_rate_factor(config, epoch * steps_per_epoch + step, steps_per_epoch)
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * factor
            image = image.to(fabric.device).contiguous(memory_format=torch.channels_last)
            label = label.to(fabric.device)
            logits = raw.decoder(raw.encoder(image), (image.shape[-2], image.shape[-1]))
            loss = LOSSES[config.loss](logits, label) / label.numel()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise OhloraError(
                    f"the loss is no longer a number in epoch {epoch + 1}: training stopped, {out} keeps what was "
                    "saved after the epoch before; start again with a lower --learning-rate in another --out"
                )
            optimizer.zero_grad()
            fabric.backward(loss)
            if config.clip_norm:
                # A gradient that is no number shows in the next loss, before anything is saved.
                fabric.clip_gradients(model, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
            optimizer.step()
            if config.ema:
                average.update(raw)
        row: dict[str, Any] = {
            "epoch": epoch,
            "size": config.size_at(epoch),
            "train_loss": float(np.mean(losses)),
        }
        state["epoch"] += 1
        weights = average.state if config.ema else raw.state_dict()
        if state["epoch"] % config.evaluate_every == 0 or state["epoch"] == config.epochs:
            shadow.load_state_dict(weights)
            row.update(validate(shadow, sources, config, fabric.device))
        if not choosing or row.get("valid_loss", math.inf) < state["best"]:
            state["best"], state["best_epoch"] = row.get("valid_loss", math.inf), epoch
            save_student(best_file, weights, raw.encoder_name)
        state["seconds"] += time.monotonic() - started
        row["seconds"] = round(time.monotonic() - started, 2)
        state["log"].append(row)
        save_resume_state(last, identity, raw, optimizer, average, state)
        report(row)
        last_phase = epoch >= config.epochs - config.phases[-1][1]
        if last_phase and choosing and epoch - state["best_epoch"] >= config.patience:
            break
    return finish(out, config, sources, state, fabric.device)


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
    losses: dict[str, float] = {}
    figures: dict[str, dict[str, float]] = {}
    for name, split in sources.splits.items():
        if len(split.valid):
            losses[name], metrics = evaluate(model, sources.pictures, split.valid, config.loss, device)
            figures[name] = metrics.summary()
    row: dict[str, Any] = {}
    drawn = [loss for name, loss in losses.items() if name != REAL]
    if REAL in losses:
        row["valid_loss"] = float(np.mean([losses[REAL], np.mean(drawn)])) if drawn else losses[REAL]
        row.update(figures[REAL])
    if drawn:
        row["sources"] = {name: {"valid_loss": losses[name], **figures[name]} for name in losses}
    return row


def save_resume_state(
    path: Path, identity: str, model: nn.Module, optimizer: Any, average: Average, state: dict[str, Any]
) -> None:
    with atomic_path(path) as temporary:
        torch.save(
            {
                "identity": identity,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state,
                "average_steps": average.steps,
                "state": state,
            },
            temporary,
        )


def finish(
    out: Path, config: DistillConfig, sources: Sources, state: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """Measure the kept weights on the test pictures; write report.json, log.jsonl and valid_loss.csv.

    `test` and `test_faces` are those of the real pictures; with drawn ones, `sources` has the same for every kind.
    """
    student = load_student(out / "student.safetensors").to(device)
    parts: dict[str, dict[str, Any]] = {}
    for name, split in sources.splits.items():
        sizes = {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)}
        parts[name] = {"pictures": sizes}
        if len(split.test):
            _, metrics = evaluate(student, sources.pictures, split.test, config.loss, device)
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
    write_bytes(out / "log.jsonl", "".join(json.dumps(row) + "\n" for row in state["log"]).encode())
    rows = [f"{row['epoch']},{row['valid_loss']:.6f}\n" for row in state["log"] if "valid_loss" in row]
    write_bytes(out / "valid_loss.csv", ("epoch,valid_loss\n" + "".join(rows)).encode())
    write_bytes(out / "report.json", (json.dumps(result, indent=1) + "\n").encode())
    return result
