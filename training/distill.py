"""Stage `distill`: teach a light student the teacher's hair maps (spec: segmentation, section 6).

The documented recipe and the one for few pictures are two rows of PRESETS; the loop is the same. Every random choice
is keyed by (seed, epoch, item), so a killed run resumes to the weights an uninterrupted one gives.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.atomic import atomic_path, make_folder, write_bytes
from ohlora.errors import BadRequest
from ohlora.hair import resize_area
from ohlora.training.data.augment import Augmentation, augment
from ohlora.training.data.hair_faces import HairFace, find_faces, to_tensor_layout
from ohlora.training.data.people import distances, split_people, thumbnails
from ohlora.training.losses import LOSSES
from ohlora.training.metrics import HairMetrics
from ohlora.training.nets.effisegnet import DOCUMENTED_ENCODER, SHIPPED_ENCODER, SIZE, EffiSegNet
from ohlora.training.student import imagenet_encoder_state, load_student, save_student


@dataclass(frozen=True)
class DistillConfig:
    """A recipe. phases: (picture size, epochs) in order; small pictures first learn several times faster on a CPU."""

    encoder: str = SHIPPED_ENCODER
    imagenet: bool = True
    loss: str = "soft_bce"
    phases: tuple[tuple[int, int], ...] = ((128, 60), (SIZE, 28))
    batch_size: int = 16
    learning_rate: float = 2e-3
    encoder_rate: float = 0.5  # times learning_rate, for pretrained layers
    weight_decay: float = 0.02
    warmup_steps: int = 60
    schedule: str = "cosine"  # or "exponential": times 0.975 per epoch
    ema: float = 0.998  # 0 = off
    clip_norm: float = 1.0  # 0 = off
    drop_path: float = 0.1
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    split: str = "people"  # or "random": by picture, 80 / 10 / 10 as documented
    holdout: float = 0.2  # 0 = train on everything, nothing measured
    patience: int = 40  # epochs without a better validation loss, counted in the last phase
    evaluate_every: int = 5
    start_from: str | None = None  # a student's .safetensors to go on from
    seed: int = 7

    @property
    def epochs(self) -> int:
        return sum(epochs for _, epochs in self.phases)

    def size_at(self, epoch: int) -> int:
        for size, epochs in self.phases:
            if epoch < epochs:
                return size
            epoch -= epochs
        return self.phases[-1][0]


PRESETS: dict[str, DistillConfig] = {
    "few-faces": DistillConfig(),
    "documented": DistillConfig(
        encoder=DOCUMENTED_ENCODER,
        imagenet=False,
        phases=((SIZE, 240),),
        learning_rate=1e-4,
        encoder_rate=1.0,
        weight_decay=0.01,
        warmup_steps=0,
        schedule="exponential",
        ema=0.0,
        clip_norm=0.0,
        drop_path=0.2,
        augmentation=None,
        split="random",
        patience=20,
        evaluate_every=1,
    ),
}


@dataclass(frozen=True)
class Split:
    """Indices into the list of faces. test: reported figures; valid: early stopping (the same faces for "people")."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]


def make_split(faces: list[HairFace], config: DistillConfig) -> Split:
    everything = np.arange(len(faces))
    if config.holdout <= 0:
        return Split(everything, everything[:0], everything[:0])
    if config.split == "random":
        order = np.random.default_rng(config.seed).permutation(len(faces))
        a, b = int(0.8 * len(faces)), int(0.1 * len(faces))
        return Split(order[:a], order[a : a + b], order[a + b :])
    train, held, _ = split_people(
        distances(thumbnails([face.read()[0] for face in faces])), config.holdout, config.seed
    )
    if not len(train) or not len(held):
        raise BadRequest(
            f"{len(faces)} pictures cannot be split with --holdout {config.holdout}: use more pictures or --holdout 0"
        )
    return Split(train, held, held)


def training_batches(
    faces: list[HairFace], indices: NDArray[np.int64], config: DistillConfig, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented batches: images [B,3,S,S] in [-1,1], soft labels [B,1,S,S] in [0,1]."""
    size = config.size_at(epoch)
    order = np.random.default_rng((config.seed, epoch)).permutation(indices)
    for start in range(0, len(order), config.batch_size):
        chosen = order[start : start + config.batch_size]
        if len(chosen) < 2 <= len(order):  # a lone picture has no batch statistics worth learning from
            continue
        images, labels = [], []
        for index in chosen:
            rng = np.random.default_rng((config.seed, epoch, int(index)))
            image, label, parsing = faces[index].read()
            if config.augmentation is not None:
                donor = faces[int(rng.choice(indices))].read()[:2]
                image, label = augment(image, label, parsing, size, rng, config.augmentation, donor)
            else:
                image, label = resize_area(image, (size, size)), resize_area(label, (size, size))
            images.append(to_tensor_layout(image))
            labels.append(label[None].astype(np.float32) / 255)
        yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


@torch.no_grad()
def evaluate(
    model: EffiSegNet, faces: list[HairFace], indices: NDArray[np.int64], loss: str, device: torch.device
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
) -> dict[str, Any]:
    """Train, keep the best, measure. `report` gets one row per epoch. Returns the final report.

    Writes to `out`: student.safetensors (best, averaged weights), last.pt (resume state), log.jsonl,
    valid_loss.csv, report.json. Raises BadRequest for unusable data or a folder of another recipe.
    """
    make_folder(out)
    faces = find_faces(data)
    split = make_split(faces, config)
    identity = json.dumps({"config": asdict(config), "pictures": [f.picture.name for f in faces]}, sort_keys=True)
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
    steps_per_epoch = math.ceil(len(split.train) / config.batch_size)
    best_file = out / "student.safetensors"

    while state["epoch"] < config.epochs:
        epoch, started, losses = state["epoch"], time.monotonic(), []
        torch.manual_seed(config.seed * 100003 + epoch)  # stochastic depth, the same after a resume
        model.train()
        for step, (image, label) in enumerate(training_batches(faces, split.train, config, epoch)):
            factor = learning_rate_factor(config, epoch * steps_per_epoch + step, steps_per_epoch)
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * factor
            image = image.to(fabric.device).contiguous(memory_format=torch.channels_last)
            label = label.to(fabric.device)
            logits = raw.decoder(raw.encoder(image), (image.shape[-2], image.shape[-1]))
            loss = LOSSES[config.loss](logits, label) / label.numel()
            optimizer.zero_grad()
            fabric.backward(loss)
            if config.clip_norm:
                fabric.clip_gradients(model, optimizer, max_norm=config.clip_norm)
            optimizer.step()
            if config.ema:
                average.update(raw)
            losses.append(float(loss.detach()))
        row: dict[str, Any] = {
            "epoch": epoch,
            "size": config.size_at(epoch),
            "train_loss": float(np.mean(losses)),
        }
        state["epoch"] += 1
        ends = state["epoch"] == config.epochs
        measured = len(split.valid) and (state["epoch"] % config.evaluate_every == 0 or ends)
        source = average.state if config.ema else raw.state_dict()
        if measured:
            shadow.load_state_dict(source)
            row["valid_loss"], metrics = evaluate(shadow, faces, split.valid, config.loss, fabric.device)
            row.update(metrics.summary())
        better = row["valid_loss"] < state["best"] if measured else not len(split.valid)
        if better:
            state["best"], state["best_epoch"] = row.get("valid_loss", math.inf), epoch
            save_student(best_file, source, raw.encoder_name)
        state["seconds"] += time.monotonic() - started
        row["seconds"] = round(time.monotonic() - started, 2)
        state["log"].append(row)
        save_resume_state(last, identity, raw, optimizer, average, state)
        report(row)
        last_phase = epoch >= config.epochs - config.phases[-1][1]
        if last_phase and len(split.valid) and epoch - state["best_epoch"] >= config.patience:
            break
    return finish(out, config, faces, split, state, fabric.device)


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
    out: Path,
    config: DistillConfig,
    faces: list[HairFace],
    split: Split,
    state: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """Measure the kept weights on the test faces; write report.json, log.jsonl and valid_loss.csv."""
    result: dict[str, Any] = {
        "config": asdict(config),
        "pictures": {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)},
        "epochs": state["epoch"],
        "best_epoch": state["best_epoch"],
        "train_seconds": round(state["seconds"], 1),
    }
    if len(split.test):
        student = load_student(out / "student.safetensors").to(device)
        _, metrics = evaluate(student, faces, split.test, config.loss, device)
        result["test"] = metrics.summary()
        names = [faces[i].picture.stem for i in split.test]
        result["test_faces"] = dict(zip(names, metrics.per_face_iou().round(4).tolist(), strict=True))
    write_bytes(out / "log.jsonl", "".join(json.dumps(row) + "\n" for row in state["log"]).encode())
    rows = [f"{row['epoch']},{row['valid_loss']:.6f}\n" for row in state["log"] if "valid_loss" in row]
    write_bytes(out / "valid_loss.csv", ("epoch,valid_loss\n" + "".join(rows)).encode())
    write_bytes(out / "report.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


def preset(name: str, **changes: Any) -> DistillConfig:
    """A named recipe with some fields changed. Raises BadRequest naming the known recipes."""
    if name not in PRESETS:
        raise BadRequest(f"unknown recipe '{name}': choose {' or '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)


def parse_phases(text: str) -> tuple[tuple[int, int], ...]:
    """ "128:60,224:28" -> ((128, 60), (224, 28)). Sizes must be multiples of 32."""
    try:
        phases = tuple((int(size), int(epochs)) for size, epochs in (part.split(":") for part in text.split(",")))
    except ValueError as error:
        raise BadRequest(f"phases '{text}' are not understood: write SIZE:EPOCHS,SIZE:EPOCHS") from error
    if any(size < 64 or size % 32 or epochs < 1 for size, epochs in phases):
        raise BadRequest(f"phases '{text}': sizes are multiples of 32 from 64 on, epochs at least 1")
    return phases
