"""The training loop that all students share: averaged weights, the best epoch kept, stopped runs resume to the bit.

What is learned is a `Lesson`: where an epoch's batches come from, the loss, and what is measured after it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ohlora.base.atomic import atomic_path, write_bytes
from ohlora.errors import InvalidInputError, OhloraError
from ohlora.training.nets.effisegnet import EffiSegNet
from ohlora.training.students.recipes import DistillConfig
from ohlora.training.weights.student import save_student

STUDENT = "student.safetensors"


@dataclass(frozen=True)
class Lesson:
    """What a student learns.

    pictures: of one epoch. batches: epoch -> (image [B,3,S,S] in [-1,1], label), always the same for one epoch.
    loss: (logits [B,outputs,S,S], label) -> mean loss. validate: (student in evaluation mode, device) -> figures for
    the epoch's row, with "valid_loss" where something is held out. choosing: whether something is: then the epoch of
    the least valid_loss is kept, else the last.
    """

    pictures: int
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    loss: Callable[[Tensor, Tensor], Tensor]
    validate: Callable[[EffiSegNet, torch.device], dict[str, Any]]
    choosing: bool


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


def train(
    raw: EffiSegNet,
    lesson: Lesson,
    config: DistillConfig,
    out: Path,
    identity: str,
    *,
    resume: bool = True,
    accelerator: str = "auto",
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> tuple[dict[str, Any], torch.device]:
    """Train `raw` or go on with the run in `out`; returns its state (epoch, best_epoch, log, seconds) and the device.

    Writes to `out`: student.safetensors (the kept weights), last.pt (resume state), log.jsonl, valid_loss.csv.
    report gets one row an epoch. identity: what a resumed run must share with the stopped one; InvalidInputError where
    it does not. Raises OhloraError when the loss is no longer a number.
    """
    fabric = Fabric(accelerator=accelerator, devices=1)
    raw = raw.to(memory_format=torch.channels_last)
    encoder = list(raw.encoder.parameters())
    groups = [
        {"params": encoder, "lr": config.learning_rate * config.encoder_rate},
        {"params": raw.decoder.parameters(), "lr": config.learning_rate},
    ]
    model, optimizer = fabric.setup(raw, torch.optim.AdamW(groups, weight_decay=config.weight_decay))
    model.mark_forward_method("logits")
    base_rates = [group["lr"] for group in optimizer.param_groups]
    average = Average(raw, config.ema)
    shadow = EffiSegNet(raw.encoder_name, outputs=raw.outputs, drop_path=0.0)
    shadow = shadow.to(memory_format=torch.channels_last).to(fabric.device)
    state: dict[str, Any] = {"epoch": 0, "best": math.inf, "best_epoch": -1, "log": [], "seconds": 0.0}
    last = out / "last.pt"
    if resume and last.is_file():
        saved = torch.load(last, weights_only=True, map_location=fabric.device)
        if saved["identity"] != identity:
            raise InvalidInputError(f"{out} holds a run with another recipe or other pictures: choose another --out")
        raw.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average.state, average.steps = saved["average"], saved["average_steps"]
        state = saved["state"]
    steps_per_epoch = math.ceil(lesson.pictures / config.batch_size)

    while state["epoch"] < config.epochs and not stalled(state, config, lesson.choosing):
        epoch, started, losses = state["epoch"], time.monotonic(), []
        torch.manual_seed(config.seed * 100003 + epoch)  # stochastic depth, the same after a resume
        model.train()
        for step, (image, label) in enumerate(lesson.batches(epoch)):
            factor = learning_rate_factor(config, epoch * steps_per_epoch + step, steps_per_epoch)
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * factor
            image = image.to(fabric.device).contiguous(memory_format=torch.channels_last)
            label = label.to(fabric.device)
            logits = raw.decoder(raw.encoder(image), (image.shape[-2], image.shape[-1]))
            loss = lesson.loss(logits, label)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise OhloraError(
                    f"the loss is no longer a number in epoch {epoch + 1}: training stopped, {out} keeps what was "
                    "saved after the epoch before; start again with a lower --learning-rate in another --out"
                )
            optimizer.zero_grad()
            fabric.backward(loss * label.numel() if config.reduction == "sum" else loss)
            if config.clip_norm:
                # A gradient that is no number shows in the next loss, before anything is saved.
                fabric.clip_gradients(model, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
            optimizer.step()
            if config.ema:
                average.update(raw)
        row: dict[str, Any] = {"epoch": epoch, "size": config.size_at(epoch), "train_loss": float(np.mean(losses))}
        state["epoch"] += 1
        weights = average.state if config.ema else raw.state_dict()
        if state["epoch"] % config.evaluate_every == 0 or state["epoch"] == config.epochs:
            shadow.load_state_dict(weights)
            row.update(lesson.validate(shadow.eval(), fabric.device))
        if not lesson.choosing or row.get("valid_loss", math.inf) < state["best"]:
            state["best"], state["best_epoch"] = row.get("valid_loss", math.inf), epoch
            save_student(out / STUDENT, weights, raw.encoder_name)
        state["seconds"] += time.monotonic() - started
        row["seconds"] = round(time.monotonic() - started, 2)
        state["log"].append(row)
        save_resume_state(last, identity, raw, optimizer, average, state)
        write_logs(out, state["log"])
        report(row)
    return state, fabric.device


def stalled(state: dict[str, Any], config: DistillConfig, choosing: bool) -> bool:
    """Whether the best epoch is `patience` epochs old, in the last phase."""
    epoch = state["epoch"] - 1
    last_phase = epoch >= config.epochs - config.phases[-1][1]
    return choosing and last_phase and epoch - state["best_epoch"] >= config.patience


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


def write_logs(out: Path, log: list[dict[str, Any]]) -> None:
    """log.jsonl with every row, and valid_loss.csv as documented."""
    rows = [f"{row['epoch']},{row['valid_loss']:.6f}\n" for row in log if "valid_loss" in row]
    write_bytes(out / "log.jsonl", "".join(json.dumps(row) + "\n" for row in log).encode())
    write_bytes(out / "valid_loss.csv", ("epoch,valid_loss\n" + "".join(rows)).encode())
