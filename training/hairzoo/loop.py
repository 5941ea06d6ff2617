"""Train a network of the zoo on four folds and choose its best epoch on the fifth
(docs/spec/segmentation.md, section 8).

Every random choice is keyed by (seed, epoch, item), so a killed run resumes to the weights an uninterrupted one gives.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ohlora.base.atomic import atomic_path, make_folder, remove_leftovers, write_bytes
from ohlora.errors import InvalidInputError, OhloraError
from ohlora.training.hairzoo.checkpoint import load_weights, save_checkpoint
from ohlora.training.hairzoo.config import ZooConfig
from ohlora.training.hairzoo.encoder_weights import NONE, Note, start_model
from ohlora.training.hairzoo.losses import LOSSES, batch_dice
from ohlora.training.hairzoo.models import check_size
from ohlora.training.hairzoo.pictures import ZooData
from ohlora.training.hairzoo.pipeline import batches
from ohlora.training.hairzoo.schedules import Schedule
from ohlora.training.hairzoo.sources import fingerprint, open_data
from ohlora.training.hairzoo.zoo_report import measure, write_overlays
from ohlora.training.loop.precision import lightning_precision

RESUME = "last.pt"
SHOWN = 24


@dataclass
class Mean:
    """Mean of batch values, each weighted by its number of pictures."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float, count: int) -> None:
        self.total, self.count = self.total + value * count, self.count + count

    @property
    def value(self) -> float:
        return self.total / max(self.count, 1)


def make_fabric(precision: str, accelerator: str) -> tuple[Fabric, MixedPrecision | None]:
    """The device, and the loss scaler's owner where there is one.

    Raises InvalidInputError for fp16 without CUDA.
    """
    if precision != "fp16":
        return Fabric(accelerator=accelerator, devices=1, precision=lightning_precision(precision)), None
    if accelerator == "cpu" or not torch.cuda.is_available():
        raise InvalidInputError("--precision fp16 needs a CUDA device: use bf16 or fp32 here")
    # Made here and not by Fabric, because a resumed run must go on with the same loss scale.
    plugin = MixedPrecision(lightning_precision(precision), device="cuda")
    return Fabric(accelerator="cuda", devices=1, plugins=[plugin]), plugin


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: DataLoader[list[Tensor]], loss: str, device: torch.device
) -> tuple[float, float]:
    """(loss, Dice) of held-out pictures, batch-size-weighted means over batches, in evaluation mode."""
    model.eval()
    losses, dice = Mean(), Mean()
    for image, label in loader:
        image, label = to_device(image, label, device)
        logits = model(image).float()
        losses.add(float(LOSSES[loss](logits, label)), len(image))
        dice.add(batch_dice(logits, label), len(image))
    return losses.value, dice.value


def to_device(image: Tensor, label: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    return image.to(device).contiguous(memory_format=torch.channels_last), label.to(device)


def groups(loader: DataLoader[list[Tensor]], length: int) -> Iterator[list[list[Tensor]]]:
    """Batches in groups of `length`, the last one shorter where they do not divide."""
    group: list[list[Tensor]] = []
    for batch in loader:
        group.append(batch)
        if len(group) == length:
            yield group
            group = []
    if group:
        yield group


class Run:
    """One training run in folder `out`. See `run`."""

    def __init__(
        self,
        config: ZooConfig,
        data: ZooData,
        out: Path,
        *,
        accelerator: str = "auto",
        workers: int = 0,
        resume: bool = False,
        note: Note = lambda text: None,
    ) -> None:
        self.config, self.data, self.out, self.workers = config, data, out, workers
        self.train_indices, self.held = data.split(config.fold)
        if len(self.train_indices) < config.batch_size:
            raise InvalidInputError(
                f"{len(self.train_indices)} training pictures are less than one batch of {config.batch_size}: use a "
                "smaller --batch-size or more pictures"
            )
        self.identity = json.dumps({"config": config.identity(), "data": fingerprint(data)}, sort_keys=True)
        self.last, self.best_file = out / RESUME, out / config.file_name
        self.fabric, self.scaler = make_fabric(config.precision, accelerator)
        self.raw = self._network(resume, note)
        parameters = [p for p in self.raw.parameters() if p.requires_grad]
        adam = torch.optim.Adam(parameters, lr=config.encoder_lr, weight_decay=config.weight_decay)
        self.model, self.optimizer = self.fabric.setup(self.raw, adam)
        self.schedule = Schedule(config)
        # The first epoch's Dice always counts as better, so that there is a checkpoint even of a network that learned
        # nothing.
        self.state: dict[str, Any] = {"epoch": 0, "best": -1.0, "best_epoch": -1, "log": [], "seconds": 0.0}

    def _network(self, resume: bool, note: Note) -> nn.Module:
        config = self.config
        if resume or config.start_from is not None:
            # Its weights are replaced: do not read, or download, what the encoder would start from.
            config = replace(config, encoder_weights=NONE)
        raw = start_model(config, note)
        if config.start_from is not None and not resume:
            load_weights(raw, Path(config.start_from), config.decoder_type)
        check_size(raw, config.encoder_type, config.decoder_type, config.image_size)
        return raw.to(memory_format=torch.channels_last)

    def load(self) -> None:
        """Go on from the resume state. Raises InvalidInputError when it is damaged."""
        try:
            saved = torch.load(self.last, weights_only=True, map_location=self.fabric.device)
            self.raw.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            if self.scaler is not None and saved["scaler"]:
                self.scaler.load_state_dict(saved["scaler"])
            self.state = saved["state"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InvalidInputError(
                f"cannot resume from {self.last}: {str(error).splitlines()[0][:200]}; use --restart"
            ) from error

    def save(self) -> None:
        with atomic_path(self.last) as temporary:
            torch.save(
                {
                    "identity": self.identity,
                    "model": self.raw.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "schedule": self.schedule.state_dict(),
                    "scaler": None if self.scaler is None else self.scaler.state_dict(),
                    "state": self.state,
                },
                temporary,
            )
        write_bytes(self.out / "log.jsonl", "".join(json.dumps(row) + "\n" for row in self.state["log"]).encode())

    def epoch(self) -> dict[str, Any]:
        """Train one epoch and measure it. Raises OhloraError when the loss is no longer a number."""
        config, epoch, device = self.config, self.state["epoch"], self.fabric.device
        started, rate = time.monotonic(), self.schedule.rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(config.seed * 100003 + epoch)  # stochastic depth and dropout, the same after a resume
        loader = batches(self.data.pictures, self.train_indices, config, epoch, self.workers)
        losses, dice = self._train(loader, device)
        held = batches(self.data.pictures, self.held, config, None, self.workers)
        valid_loss, valid_dice = evaluate(self.model, held, config.loss, device)
        # A gradient that is no number in the last step shows here, before anything is saved.
        self._require_finite(valid_loss)
        self.schedule.after_epoch(valid_dice)
        self.state["epoch"] += 1
        better = valid_dice > self.state["best"]
        if better:
            self.state["best"], self.state["best_epoch"] = valid_dice, epoch
        row = {
            "epoch": epoch, "lr": rate, "train_loss": losses, "train_dice": dice, "valid_loss": valid_loss,
            "valid_dice": valid_dice, "best": better, "seconds": round(time.monotonic() - started, 2),
        }  # fmt: skip
        self.state["seconds"] += time.monotonic() - started
        self.state["log"].append(row)
        if better:
            save_checkpoint(self.best_file, self.raw, self.optimizer.state_dict(), self.schedule.state_dict())
        self.save()
        return row

    def _train(self, loader: DataLoader[list[Tensor]], device: torch.device) -> tuple[float, float]:
        config = self.config
        losses, dice = Mean(), Mean()
        self.model.train()
        for group in groups(loader, config.accumulation):
            self.optimizer.zero_grad()
            for image, label in group:
                image, label = to_device(image, label, device)
                try:
                    logits = self.model(image).float()
                except ValueError as error:
                    if "more than 1 value per channel" not in str(error):
                        raise
                    raise InvalidInputError(
                        f"{config.decoder_type} pools to one pixel, which one picture alone cannot normalise: use "
                        f"--batch-size 2 or more, got {config.batch_size}"
                    ) from error
                loss = LOSSES[config.loss](logits, label)
                self._require_finite(float(loss.detach()))
                losses.add(float(loss.detach()), len(image))
                dice.add(batch_dice(logits.detach(), label), len(image))
                self.fabric.backward(loss / len(group))
            if config.clip_norm:
                # Of true gradients: Fabric takes the loss scale of 16-bit precision off first.
                self.fabric.clip_gradients(
                    self.model, self.optimizer, max_norm=config.clip_norm, error_if_nonfinite=False
                )
            self.optimizer.step()
        return losses.value, dice.value

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise OhloraError(
                f"the loss is no longer a number in epoch {self.state['epoch'] + 1}: training stopped, {self.out} "
                "keeps what was saved after the epoch before; start again with a lower --encoder-lr in another --out"
            )


def run(
    config: ZooConfig,
    folders: Sequence[Path],
    out: Path,
    *,
    workers: int = 0,
    resume: bool = True,
    accelerator: str = "auto",
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """Train the recipe's network on `folders` in `out`; the same call goes on where a stopped one ended.

    Writes the best epoch's checkpoint in the published layout (`config.file_name`; best = held-out Dice strictly
    larger), last.pt (resume state), log.jsonl, report.json, left_out.json and overlays.jpg (worst held-out pictures).
    `report` gets one row per epoch: epoch, lr, train_loss, train_dice, valid_loss, valid_dice, best, seconds. `note`
    gets a line where pictures are left out and before anything is downloaded. Returns the final report.

    workers: processes that read pictures; the weights do not depend on it. Raises InvalidInputError for unusable data
    or another run's folder, CheckpointError for weights that do not fit, OhloraError for a loss that is not finite.
    """
    if workers < 0:
        raise InvalidInputError(f"--num-workers must not be negative, got {workers}")
    data = open_data(config, folders)
    resume = resume and (out / RESUME).is_file()
    if resume:
        _require_same_run(out / RESUME, config, data)
    # Nothing is written before everything that can be wrong with the request has been looked at.
    training = Run(config, data, out, accelerator=accelerator, workers=workers, resume=resume, note=note)
    make_folder(out)
    remove_leftovers(out)
    if (people := data.count_people(training.held)) is not None:
        note(f"held out: {len(training.held)} pictures of {people} people")
    if resume:
        training.load()
    else:
        (out / RESUME).unlink(missing_ok=True)
    write_bytes(out / "left_out.json", (json.dumps(data.left_out, indent=1, ensure_ascii=False) + "\n").encode())
    if data.left_out:
        name, why = next(iter(data.left_out.items()))
        note(f"{len(data.left_out)} left out, listed in {out / 'left_out.json'}; the first: {name} ({why})")
    while training.state["epoch"] < config.epochs:
        report(training.epoch())
    return finish(training)


def _require_same_run(last: Path, config: ZooConfig, data: ZooData) -> None:
    """Raises InvalidInputError when a folder holds another run, naming what differs."""
    try:
        saved = json.loads(torch.load(last, weights_only=True, map_location="cpu", mmap=True)["identity"])
    except Exception as error:  # the unpickler raises whatever the bytes make it raise
        raise InvalidInputError(f"cannot resume from {last}: it is damaged; use --restart") from error
    ours = json.loads(json.dumps({"config": config.identity(), "data": fingerprint(data)}))
    if saved == ours:
        return
    other = sorted(k for k in ours["config"] if saved["config"].get(k) != ours["config"][k]) or ["pictures"]
    raise InvalidInputError(
        f"{last.parent} holds a run with other {', '.join(other)}: choose another --out, or --restart"
    )


def finish(training: Run) -> dict[str, Any]:
    """Measure the kept weights on the held-out pictures; write report.json and overlays.jpg."""
    config, state, data = training.config, training.state, training.data
    load_weights(training.raw, training.best_file, config.decoder_type)
    device = training.fabric.device
    pictures = [data.pictures[i] for i in training.held]
    figures, worst = measure(training.raw, pictures, config.image_size, config.batch_size, device, SHOWN)
    write_overlays(training.out / "overlays.jpg", training.raw, [pictures[i] for i in worst], config.image_size, device)
    result: dict[str, Any] = {
        "config": {**config.identity(), "precision": config.precision},
        "checkpoint": config.file_name,
        "parameters": sum(p.numel() for p in training.raw.parameters()),
        "pictures": {
            "train": len(training.train_indices),
            "held_out": len(training.held),
            "left_out": len(data.left_out),
        },
        "held_out_people": data.count_people(training.held),
        "epochs": state["epoch"],
        "best_epoch": state["best_epoch"],
        "best_dice": state["best"],
        "held_out": figures,
        "train_seconds": round(state["seconds"], 1),
        "log": state["log"],
    }
    write_bytes(training.out / "report.json", (json.dumps(result, indent=1) + "\n").encode())
    return result
