"""The training loop that all students share: averaged weights, the best epoch kept, stopped runs resume to the bit.

What is learned is a `Lesson`. Every random choice is keyed by (seed, epoch, item), so a killed run resumes to the
weights an uninterrupted one gives.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.base.atomic import make_folder, write_csv, write_json
from ohlora.base.types import Rgb
from ohlora.errors import InvalidInputError
from ohlora.photos.segmentation import resize_area
from ohlora.training.data.hair_faces import HairFace, Sample, read_files, to_tensor_layout
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.logs import write_rows
from ohlora.training.loop.prefetch import prefetched
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.slow_kernels import spare_slow_kernels
from ohlora.training.loop.states import Stateful, load_states, save_tensors, states_of
from ohlora.training.loop.steps import EpochState, require_finite, train_epochs
from ohlora.training.nets.effisegnet import DOCUMENTED_ENCODER, SIZE, EffiSegNet
from ohlora.training.students.norms import has_unmeasured_norms, measure_norms
from ohlora.training.students.recipes import NEWER, DistillConfig
from ohlora.training.students.sources import REAL, Note, Sources, View, epoch_order, find_sources
from ohlora.training.weights.student import load_student, published_student, save_student

BATCH = 8  # of pictures that are measured
STUDENT = "student.safetensors"
PUBLISHED = "segmentation_model_ohlora_v4.pth"  # the documented hair student, as other programs of the family load it
MEASURED_BATCHES = 8
Report = Callable[[dict[str, Any]], None]
C = TypeVar("C", bound=DistillConfig)


class Metrics(Protocol):
    """Figures of some pictures, pooled and by face."""

    def add(self, found: NDArray[Any], truth: NDArray[Any], /) -> None: ...

    def summary(self) -> dict[str, float]: ...

    def per_face_iou(self) -> NDArray[np.float64]: ...


class Lesson(ABC):
    """What a student learns from `sources`: which label of a picture, by which loss, and how well that is found."""

    outputs: int
    divisor: ClassVar[int] = 1  # what makes the sum of `total` over pictures one per pixel

    def __init__(self, sources: Sources, config: DistillConfig) -> None:
        self.sources, self.config = sources, config

    @abstractmethod
    def metrics(self) -> Metrics:
        """Empty ones."""

    @abstractmethod
    def example(
        self, sample: Sample, size: int, rng: np.random.Generator, donor: Sample | None
    ) -> tuple[Rgb, NDArray[np.float32]]:
        """Picture [S,S,3] and label [outputs,S,S] in [0,1], augmented as the recipe says.

        donor: another sample, for what is pasted in.
        """

    @abstractmethod
    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """logits, label [B,outputs,S,S] -> mean loss per pixel."""

    @abstractmethod
    def total(self, logits: Tensor, label: Tensor) -> float:
        """The loss of all pictures of a batch together, per pixel times `divisor`."""

    @abstractmethod
    def label(self, stored: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The stored map [H,W] of a picture -> what is learned, [outputs,224,224]."""

    @abstractmethod
    def answers(self, logits: Tensor, label: NDArray[np.float32]) -> Iterable[tuple[NDArray[Any], NDArray[Any]]]:
        """What the metrics take of each picture of a batch: found, true, [224,224]."""

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the one that was stopped."""
        drawn = {"drawn": self.sources.origin} if self.sources.origin else {}
        return {"config": self.config.as_dict(), "pictures": self.sources.files, **drawn}

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled, augmented: image [B,3,S,S] in [-1,1], label [B,outputs,S,S]; always the same for one epoch."""
        config, pictures = self.config, self.sources.pictures
        order = epoch_order(self.sources, config, epoch)
        # What is pasted into a picture comes from real ones only: cheap to read, and real texture for the drawn ones.
        donors = self.sources.splits[REAL].train
        for start in range(0, len(order), config.batch_size):
            chosen = order[start : start + config.batch_size]
            if len(chosen) < 2 <= len(order):  # a lone picture has no batch statistics worth learning from
                continue
            images, labels = [], []
            for index in chosen:
                rng = np.random.default_rng((config.seed, epoch, int(index)))
                sample = pictures[index].read()
                donor = None if config.augmentation is None else pictures[int(rng.choice(donors))].read()
                image, label = self.example(sample, config.size_at(epoch), rng, donor)
                images.append(to_tensor_layout(image))
                labels.append(label)
            yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))

    @torch.no_grad()
    def measure(self, model: EffiSegNet, indices: NDArray[np.int64], device: torch.device) -> tuple[float, Metrics]:
        """Loss and figures on whole pictures at 224, in evaluation mode."""
        model.eval()
        metrics, total = self.metrics(), 0.0
        for start in range(0, len(indices), BATCH):
            samples = [self.sources.pictures[i].read() for i in indices[start : start + BATCH]]
            image = np.stack([to_tensor_layout(resize_area(sample[0], (SIZE, SIZE))) for sample in samples])
            label = np.stack([self.label(sample[1]) for sample in samples])
            batch = torch.from_numpy(image).to(device).contiguous(memory_format=torch.channels_last)
            logits = model.logits(batch).float()
            total += self.total(logits, torch.from_numpy(label).to(device))
            for found, truth in self.answers(logits, label):
                metrics.add(found, truth)
        return total / self.divisor / max(len(indices), 1), metrics

    def validate(self, model: EffiSegNet, device: torch.device) -> dict[str, Any]:
        """The held-out part of an epoch's row: figures of the real pictures, `sources` with those of each kind when
        there are several, and `valid_loss`, which chooses the epoch; {} where nothing is held out.
        """
        losses: dict[str, float] = {}
        figures: dict[str, dict[str, float]] = {}
        for name, split in self.sources.splits.items():
            if len(split.valid):
                losses[name], metrics = self.measure(model, split.valid, device)
                figures[name] = metrics.summary()
        row: dict[str, Any] = {}
        drawn = [loss for name, loss in losses.items() if name != REAL]
        if REAL in losses:
            row["valid_loss"] = float(np.mean([losses[REAL], np.mean(drawn)])) if drawn else losses[REAL]
            row.update(figures[REAL])
        if drawn:
            row["sources"] = {name: {"valid_loss": losses[name], **figures[name]} for name in losses}
        return row


def start_files(config: DistillConfig) -> dict[str, list[Path]]:
    """The weights that a student begins with, by what they are."""
    files = {"start student": config.start_from, "encoder weights": config.encoder_weights}
    return {what: [Path(file)] for what, file in files.items() if file is not None}


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


class Training:
    """A training of `raw` in the folder `out`, or the rest of it. Raises InvalidInputError for another run's folder."""

    def __init__(
        self, raw: EffiSegNet, lesson: Lesson, out: Path, *, resume: bool = True, accelerator: str = "auto"
    ) -> None:
        config, self.fabric = lesson.config, make_fabric(accelerator, precision=lesson.config.precision)
        self.lesson, self.config, self.out = lesson, config, out
        self.folder = RunFolder(
            out,
            lesson.identity(),
            self.fabric,
            reads={**read_files(lesson.sources.pictures), **start_files(config)},
            resume=resume,
            state_file="last.pt",
            defaults={"config": NEWER},
        )
        if config.start_from and self.folder.saved is None and has_unmeasured_norms(raw):
            images = [image for image, _ in islice(lesson.batches(0), MEASURED_BATCHES)]
            measure_norms(raw, torch.cat([image for image in images if image.shape == images[0].shape]))
        self.raw = raw.to(memory_format=torch.channels_last)
        if config.precision == "bf16" and self.fabric.device.type == "cpu":
            spare_slow_kernels(self.raw)
        groups = [
            {"params": list(raw.encoder.parameters()), "lr": config.learning_rate * config.encoder_rate},
            {"params": raw.decoder.parameters(), "lr": config.learning_rate},
        ]
        adam = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.model, self.optimizer = self.fabric.setup(self.raw, adam)
        self.model.mark_forward_method("logits")
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average, self.state = Average(self.raw, config.ema), EpochState()
        shadow = EffiSegNet(raw.encoder_name, outputs=raw.outputs, drop_path=0.0)
        self.shadow = shadow.to(memory_format=torch.channels_last).to(self.fabric.device)
        self.parts: dict[str, Stateful] = {"model": self.raw, "optimizer": self.optimizer}
        if (saved := self.folder.saved) is not None:
            load_states(self.parts, saved)
            self.average.state = {key: value.to(self.fabric.device) for key, value in saved["average"].items()}
            self.average.steps, self.state = saved["average_steps"], EpochState(**saved["state"])
        self.steps = math.ceil(len(epoch_order(lesson.sources, config, 0)) / config.batch_size)  # an epoch
        # With something held out of every source the epoch of the least valid_loss is kept, else the last.
        self.choosing = all(len(split.valid) for split in lesson.sources.splits.values())

    def run(self, report: Report = lambda row: None) -> dict[str, Any]:
        """Train, measure the kept weights on the test pictures, write report.json; returns its content.

        `test` and `test_faces` are those of the real pictures; with drawn ones, `sources` has the same for every kind.
        Raises TrainingStoppedError when the loss is no longer a number.
        """
        with self.folder:
            return self._run(report)

    def _run(self, report: Report) -> dict[str, Any]:
        train_epochs(self.state, self._finished, self._epoch, keep=self._keep, save=self._save, report=report)
        lesson, sources, device = self.lesson, self.lesson.sources, self.fabric.device
        student = load_student(self.out / STUDENT, outputs=lesson.outputs).to(device)
        parts: dict[str, dict[str, Any]] = {}
        for name, split in sources.splits.items():
            parts[name] = {"pictures": {side: len(indices) for side, indices in vars(split).items()}}
            if len(split.test):
                _, metrics = lesson.measure(student, split.test, device)
                names = [sources.pictures[i].name for i in split.test]
                parts[name]["test"] = metrics.summary()
                parts[name]["test_faces"] = dict(zip(names, metrics.per_face_iou().round(4).tolist(), strict=True))
        if lesson.outputs == 1 and student.encoder_name == DOCUMENTED_ENCODER:
            save_tensors(self.out / PUBLISHED, published_student(student.cpu()))
        result: dict[str, Any] = {
            "config": self.config.as_dict(),
            "epochs": self.state.epoch,
            "best_epoch": self.state.best_epoch,
            "train_seconds": round(self.state.seconds, 1),
            **parts[REAL],
            **({"sources": parts} if sources.drawn else {}),
        }
        write_json(self.out / "report.json", result)
        return result

    def _finished(self, state: EpochState) -> bool:
        """Whether the last epoch is reached, or in the last phase the best one is `patience` epochs old."""
        config, last = self.config, state.epoch - 1
        last_phase = last >= config.epochs - config.phases[-1][1]
        stalled = self.choosing and last_phase and last - state.best_epoch >= config.patience
        return state.epoch >= config.epochs or stalled

    def _epoch(self, epoch: int) -> tuple[dict[str, Any], float | None]:
        config, fabric, losses = self.config, self.fabric, []
        torch.manual_seed(config.seed * 100003 + epoch)  # stochastic depth, the same after a resume
        self.model.train()
        for step, (image, label) in enumerate(prefetched(self.lesson.batches(epoch))):
            factor = learning_rate_factor(config, epoch * self.steps + step, self.steps)
            for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
                group["lr"] = rate * factor
            image = image.to(fabric.device).contiguous(memory_format=torch.channels_last)
            label = label.to(fabric.device)
            with fabric.autocast():
                logits = self.raw.decoder(self.raw.encoder(image), (image.shape[-2], image.shape[-1])).float()
            loss = self.lesson.loss(logits, label)
            losses.append(float(loss.detach()))
            require_finite(f"epoch {epoch + 1}", {"training": losses[-1]})
            self.optimizer.zero_grad()
            fabric.backward(loss * label.numel() if config.reduction == "sum" else loss)
            if config.clip_norm:
                # A gradient that is no number shows in the next loss, before anything is saved.
                fabric.clip_gradients(self.model, self.optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
            self.optimizer.step()
            if config.ema:
                self.average.update(self.raw)
        row: dict[str, Any] = {"epoch": epoch, "size": config.size_at(epoch), "train_loss": float(np.mean(losses))}
        if (epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs:
            self.shadow.load_state_dict(self._weights())
            row.update(self.lesson.validate(self.shadow.eval(), fabric.device))
        return row, row.get("valid_loss", math.inf) if self.choosing else None

    def _weights(self) -> Mapping[str, Tensor]:
        return self.average.state if self.config.ema else self.raw.state_dict()

    def _keep(self) -> None:
        save_student(self.out / STUDENT, self._weights(), self.raw.encoder_name)

    def _save(self) -> None:
        average = {"average": self.average.state, "average_steps": self.average.steps}
        self.folder.save({**states_of(self.parts), **average, "state": vars(self.state)})
        measured = [(row["epoch"], f"{row['valid_loss']:.6f}") for row in self.state.log if "valid_loss" in row]
        write_rows(self.out / "log.jsonl", self.state.log)
        write_csv(self.out / "valid_loss.csv", [("epoch", "valid_loss"), *measured])


@dataclass(frozen=True)
class Task(Generic[C]):
    """What students are taught. find: the labelled pictures of folders; view: a drawn picture with its label."""

    lesson: Callable[[Sources, C], Lesson]
    build: Callable[[C], EffiSegNet]
    find: Callable[[Sequence[Path]], Sequence[HairFace]]
    view: View


def learn(
    task: Task[C],
    data: Sequence[Path],
    out: Path,
    config: C,
    *,
    resume: bool = True,
    accelerator: str = "auto",
    report: Report = lambda row: None,
    note: Note = lambda text: None,
    held_out: Sequence[Path] = (),
) -> tuple[dict[str, Any], Sources]:
    """Train, keep the best epoch, measure; returns the final report and what it was measured on.

    `report` gets one row per epoch, `note` what takes long. The best epoch is the one of the least held-out loss; with
    portraits mixed in, of the least mean of the loss on real pictures and that on drawn ones (itself the mean of
    theirs). With no real picture held out (holdout 0) the last epoch is kept. The same folders, holdout and seed hold
    out the same people; with folders `held_out`, their pictures are held out and all of `data` is learned from.
    Writes to `out`: student.safetensors (best, averaged weights), last.pt (resume state),
    log.jsonl, valid_loss.csv, report.json, inputs.json (hashes of what was read); a hair student of the documented
    encoder also in the published layout. Raises InvalidInputError for unusable data or a folder of another run.
    """
    sources = find_sources(data, make_folder(out), config, note, find=task.find, view=task.view, held_out=held_out)
    if not len(sources.splits[REAL].train):
        raise InvalidInputError(
            "nothing to train on: the split left no real picture; use more pictures or a lower --holdout"
        )
    lesson, model = task.lesson(sources, config), task.build(config)
    return Training(model, lesson, out, resume=resume, accelerator=accelerator).run(report), sources
