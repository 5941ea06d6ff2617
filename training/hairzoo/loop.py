"""Train a network of the zoo on four folds and choose its best epoch on the fifth
(docs/spec/segmentation.md, section 8).

Every random choice is keyed by (seed, epoch, item), so a killed run resumes to the weights an uninterrupted one gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from torch import Tensor, nn

from ohlora.base.atomic import write_json
from ohlora.errors import InvalidInputError
from ohlora.training.hairzoo.celeb import celeb_data
from ohlora.training.hairzoo.checkpoint import load_weights, save_checkpoint
from ohlora.training.hairzoo.config import ZooConfig
from ohlora.training.hairzoo.encoder_weights import NONE, Note, start_model
from ohlora.training.hairzoo.inference import Segmenter
from ohlora.training.hairzoo.korean import korean_data
from ohlora.training.hairzoo.losses import LOSSES, batch_dice
from ohlora.training.hairzoo.models import check_size
from ohlora.training.hairzoo.pictures import ZooData, faces_data
from ohlora.training.hairzoo.pipeline import batches
from ohlora.training.hairzoo.schedules import Schedule
from ohlora.training.loop import distributed
from ohlora.training.loop.logs import write_rows
from ohlora.training.loop.precision import lightning_precision
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.states import Stateful, load_states, states_of
from ohlora.training.loop.steps import EpochState, require_finite, train_epochs

Batches = Iterable[list[Tensor]]  # image [B,3,S,S], label [B,1,S,S]


def open_data(config: ZooConfig, folders: Sequence[Path]) -> ZooData:
    """The pictures of `folders` in the recipe's layout. Raises InvalidInputError naming what is wrong."""
    if not folders:
        raise InvalidInputError("no data: give --data FOLDER")
    if config.data_type == "faces":
        return faces_data(folders, config.fold)
    if len(folders) > 1:
        raise InvalidInputError(f"--data-type {config.data_type} reads one folder, got {len(folders)}")
    if not folders[0].is_dir():
        raise InvalidInputError(f"there is no folder {folders[0]}")
    return celeb_data(folders[0]) if config.data_type == "celeb" else korean_data(folders[0], config.light)


def mean(values: Sequence[tuple[float, int]]) -> float:
    """Of batch values, each weighted by its number of pictures."""
    return sum(value * count for value, count in values) / max(sum(count for _, count in values), 1)


def make_fabric(precision: str, accelerator: str) -> tuple[Fabric, dict[str, Stateful]]:
    """The device, and the loss scaler by the name "scaler" where there is one.

    Raises InvalidInputError for fp16 without CUDA.
    """
    if precision != "fp16":
        return distributed.make_fabric(accelerator, precision=precision), {}
    if accelerator == "cpu" or not torch.cuda.is_available():
        raise InvalidInputError("--precision fp16 needs a CUDA device: use bf16 or fp32 here")
    # Made here and not by Fabric, because a resumed run must go on with the same loss scale.
    plugin = MixedPrecision(lightning_precision(precision), device="cuda")
    return Fabric(accelerator="cuda", devices=1, plugins=[plugin]), {"scaler": plugin}


@torch.no_grad()
def evaluate(model: nn.Module, loader: Batches, loss: str, device: torch.device) -> tuple[float, float]:
    """(loss, Dice) of held-out pictures, batch-size-weighted means over batches, in evaluation mode."""
    model.eval()
    losses, dice = [], []
    for image, label in loader:
        image, label = to_device(image, label, device)
        logits = model(image).float()
        losses.append((float(LOSSES[loss](logits, label)), len(image)))
        dice.append((batch_dice(logits, label), len(image)))
    return mean(losses), mean(dice)


def to_device(image: Tensor, label: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    return image.to(device).contiguous(memory_format=torch.channels_last), label.to(device)


class Run:
    """One training run in folder `out`, or the rest of it. See `run`."""

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
        self.fabric, scaler = make_fabric(config.precision, accelerator)
        identity = {"config": config.identity(), "data": data.fingerprint()}
        reads = {**data.files(), "start weights": [] if config.start_from is None else [Path(config.start_from)]}
        self.folder = RunFolder(out, identity, self.fabric, reads=reads, resume=resume, state_file="last.pt")
        saved = self.folder.saved
        self.raw = self._network(saved is not None, note)
        parameters = [p for p in self.raw.parameters() if p.requires_grad]
        adam = torch.optim.Adam(parameters, lr=config.encoder_lr, weight_decay=config.weight_decay)
        self.model, self.optimizer = self.fabric.setup(self.raw, adam)
        self.schedule = Schedule(config)
        self.parts: dict[str, Stateful] = {
            "model": self.raw, "optimizer": self.optimizer, "schedule": self.schedule, **scaler,
        }  # fmt: skip
        # The first epoch's Dice always counts as better, so that there is a checkpoint even of a network that learned
        # nothing.
        self.state = EpochState(best=-1.0)
        if saved is not None:
            # Without a scaler's state the run was at another precision.
            load_states({name: part for name, part in self.parts.items() if saved.get(name)}, saved)
            self.state = EpochState(**saved["state"])

    def _network(self, resume: bool, note: Note) -> nn.Module:
        config = self.config
        if resume or config.start_from is not None:
            # Its weights are replaced: do not read, or download, what the encoder would start from.
            config = replace(config, encoder_weights=NONE)
        raw = start_model(config, note)
        if config.start_from is not None and not resume:
            load_weights(raw, Path(config.start_from), config.decoder_type)
        check_size(raw, f"{config.decoder_type} on {config.encoder_type}", config.image_size)
        return raw.to(memory_format=torch.channels_last)

    def train(self, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Epochs until the last one, then the kept weights on the held-out pictures: report.json and overlays.jpg.

        Raises TrainingStoppedError when the loss is no longer a number.
        """
        config, state, data, best = self.config, self.state, self.data, self.out / self.config.file_name
        train_epochs(
            state,
            lambda state: state.epoch >= config.epochs,
            self._epoch,
            keep=lambda: save_checkpoint(best, self.raw, self.optimizer.state_dict(), self.schedule.state_dict()),
            save=self._save,
            report=report,
            higher_is_better=True,
        )
        load_weights(self.raw, best, config.decoder_type)
        segmenter = Segmenter(self.raw.eval(), config.image_size, self.fabric.device)
        pictures = [data.pictures[i] for i in self.held]
        result: dict[str, Any] = {
            "config": {**config.identity(), "precision": config.precision},
            "checkpoint": config.file_name,
            "parameters": sum(p.numel() for p in self.raw.parameters()),
            "pictures": {"train": len(self.train_indices), "held_out": len(self.held), "left_out": len(data.left_out)},
            "held_out_people": data.count_people(self.held),
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "best_dice": state.best,
            "held_out": segmenter.measure(pictures, config.batch_size, self.out / "overlays.jpg"),
            "train_seconds": round(state.seconds, 1),
            "log": state.log,
        }
        write_json(self.out / "report.json", result)
        return result

    def _save(self) -> None:
        self.folder.save({"scaler": None, **states_of(self.parts), "state": vars(self.state)})
        write_rows(self.out / "log.jsonl", self.state.log)

    def _epoch(self, epoch: int) -> tuple[dict[str, Any], float]:
        config, rate = self.config, self.schedule.rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(config.seed * 100003 + epoch)  # stochastic depth and dropout, the same after a resume
        loader = batches(self.data.pictures, self.train_indices, config, epoch, self.workers)
        losses, dice = self.train_epoch(loader, epoch)
        held = batches(self.data.pictures, self.held, config, None, self.workers)
        valid_loss, valid_dice = evaluate(self.model, held, config.loss, self.fabric.device)
        self.schedule.after_epoch(valid_dice)
        row = {
            "epoch": epoch, "lr": rate, "train_loss": losses, "train_dice": dice, "valid_loss": valid_loss,
            "valid_dice": valid_dice, "best": valid_dice > self.state.best,
        }  # fmt: skip
        return row, valid_dice

    def train_epoch(self, loader: Batches, epoch: int) -> tuple[float, float]:
        """One pass over `loader` -> mean loss and Dice."""
        config, losses, dice, pairs = self.config, [], [], iter(loader)
        self.model.train()
        while group := list(islice(pairs, config.accumulation)):
            self.optimizer.zero_grad()
            for image, label in group:
                image, label = to_device(image, label, self.fabric.device)
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
                value = float(loss.detach())
                require_finite(f"epoch {epoch + 1}", {"training": value})
                losses.append((value, len(image)))
                dice.append((batch_dice(logits.detach(), label), len(image)))
                self.fabric.backward(loss / len(group))
            if config.clip_norm:
                # Of true gradients: Fabric takes the loss scale of 16-bit precision off first.
                self.fabric.clip_gradients(
                    self.model, self.optimizer, max_norm=config.clip_norm, error_if_nonfinite=False
                )
            self.optimizer.step()
        return mean(losses), mean(dice)


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
    """Train the recipe's network on `folders` in `out`; the same call resumes where a stopped one ended.

    Writes the best epoch's checkpoint in the published layout (`config.file_name`; best = held-out Dice strictly
    larger), last.pt (resume state), log.jsonl, report.json, left_out.json and overlays.jpg (worst held-out pictures).
    `report` gets one row per epoch: epoch, lr, train_loss, train_dice, valid_loss, valid_dice, best, seconds. `note`
    gets a line where pictures are left out and before anything is downloaded. Returns the final report.

    workers: processes that read pictures; the weights do not depend on it. Raises InvalidInputError for unusable data
    or another run's folder, CheckpointError for weights that do not fit, TrainingStoppedError for a loss that is not
    finite.
    """
    if workers < 0:
        raise InvalidInputError(f"--num-workers must not be negative, got {workers}")
    data = open_data(config, folders)
    # Nothing is written before everything that can be wrong with the request has been looked at.
    training = Run(config, data, out, accelerator=accelerator, workers=workers, resume=resume, note=note)
    with training.folder:
        return _train(training, note, report)


def _train(training: Run, note: Note, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    data, out = training.data, training.out
    if (people := data.count_people(training.held)) is not None:
        note(f"held out: {len(training.held)} pictures of {people} people")
    write_json(out / "left_out.json", data.left_out, ensure_ascii=False)
    if data.left_out:
        name, why = next(iter(data.left_out.items()))
        note(f"{len(data.left_out)} left out, listed in {out / 'left_out.json'}; the first: {name} ({why})")
    return training.train(report)


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch for a terminal."""
    mark = ", best so far" if row["best"] else ""
    return (
        f"epoch {row['epoch'] + 1}/{epochs}, rate {row['lr']:.4g}: loss {row['train_loss']:.4f}, Dice "
        f"{row['train_dice']:.4f}; held out: loss {row['valid_loss']:.4f}, Dice {row['valid_dice']:.4f}{mark}, "
        f"{row['seconds']:.0f} s"
    )
