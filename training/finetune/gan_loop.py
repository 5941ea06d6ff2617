"""The loop of the GAN recipes v1, v4, v5, v8 and v9 (docs/spec/stylegan.md, sections 8 and 9).

Every random choice is keyed by (seed, epoch, batch, use), so a killed run resumes to the weights an uninterrupted one
gives.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.cnn.monitor import Monitor
from ohlora.training.finetune.draws import Draws
from ohlora.training.finetune.gan_steps import Batch, BatchResult, GanSteps
from ohlora.training.finetune.gan_watch import GanWatch
from ohlora.training.finetune.inputs import FineTuneInputs, describe
from ohlora.training.finetune.pictures import Batches, Pictures, jittered, open_pictures
from ohlora.training.finetune.published import discriminator_file, generator_file, save_networks
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.finetune.run_folder import RunFolder, TrainingStoppedError
from ohlora.training.finetune.transfer import (
    AnyDiscriminator,
    property_discriminator,
    start_discriminator,
    start_generator,
    trained_report,
)
from ohlora.training.gan.data import to_images, to_tensor
from ohlora.training.gan.fast import keep_freed_memory
from ohlora.training.loop.distributed import my_share
from ohlora.training.nets.score_cnns import PropertyCnn
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator

JITTER_KEY = 8


def run(
    recipe: Recipe,
    inputs: FineTuneInputs,
    out: Path,
    *,
    resume: bool,
    fabric: Fabric,
    report: Any,
    stop_after: int = 0,
) -> dict[str, Any]:
    """`run_recipe` for the family "gan"."""
    pictures = open_pictures(recipe, inputs)
    batches = Batches(len(pictures), recipe.batch_size, fabric.world_size, recipe.last_batch, recipe.batches_per_epoch)
    if recipe.discriminator == "stylegan":
        batches.require_groups(recipe.group)
    generator = start_generator(recipe, inputs.load_generator(recipe.smooth_start))
    cnn = load_property_cnn(inputs)
    discriminator = _start_discriminator(recipe, inputs, cnn, generator)
    monitor = _monitor(inputs, fabric)
    keep_freed_memory()
    identity = {
        "recipe": recipe.identity(),
        "inputs": inputs.identity(recipe),
        "processes": {"number": fabric.world_size},
    }
    with RunFolder(
        out, identity, fabric, resume=resume, stop_after=stop_after, checkpoint_minutes=recipe.checkpoint_minutes
    ) as folder:
        pictures.prepare(generator.config.resolution, out / "pictures", fabric, _counting(report))
        steps = GanSteps(recipe, fabric, generator, discriminator)
        if cnn is not None:
            cnn.to(fabric.device).requires_grad_(False)
        watch = GanWatch(recipe, folder, cnn, monitor)
        training = GanTraining(recipe, folder, pictures, batches, steps, watch, report)
        return {**training.train(), "inputs": describe(inputs)}


class GanTraining:
    """One run under way; `train` takes it to its end or to a stop request."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        pictures: Pictures,
        batches: Batches,
        steps: GanSteps,
        watch: GanWatch,
        report: Any,
    ) -> None:
        self.recipe, self.folder, self.pictures, self.batches = recipe, folder, pictures, batches
        self.steps, self.watch, self.report, self.fabric = steps, watch, report, folder.fabric
        self.at: dict[str, Any] = {
            "epoch": 0, "batch": 0, "step": 0, "images": 0, "seconds": 0.0, "generator_before": None, "last_row": {},
        }  # fmt: skip

    def train(self) -> dict[str, Any]:
        if self.folder.state is not None:
            self.steps.restore(self.folder.state["networks"])
            self.at = dict(self.folder.state["at"])
        else:
            self.watch.before(self.steps.generator)
        self.report({"event": "start", "step": self.at["step"], "epoch": self.at["epoch"],
                     "pictures": len(self.pictures), "batches": len(self.batches)})  # fmt: skip
        try:
            while not self.recipe.epochs or self.at["epoch"] < self.recipe.epochs:
                if not self._epoch():
                    self._save()
                    return self.summary(stopped=True)
        except TrainingStoppedError:
            self._save_networks()  # good ones; a resume state would only meet the same batch again
            raise
        self.watch.after(self.steps.generator)
        return self.summary(stopped=False)

    def _epoch(self) -> bool:
        """The rest of the current epoch; False when stopped before its end."""
        at, started, seen = self.at, time.monotonic(), 0
        while at["batch"] < len(self.batches):
            if self.folder.should_stop():
                return False
            began = time.monotonic()
            epoch, number = at["epoch"], at["batch"]
            batch, draws = self._batch(epoch, number)
            where = f"epoch {epoch}, batch {number}"
            result = self.steps.train_batch(batch, draws, at["generator_before"], where)
            seen += draws.count
            at.update(
                batch=number + 1, step=at["step"] + 1, images=at["images"] + draws.count,
                generator_before=result.g_losses[-1], seconds=at["seconds"] + time.monotonic() - began,
            )  # fmt: skip
            if self.watch.wanted(epoch, number):
                self._record(epoch, number, batch, result, seen / (time.monotonic() - started))
                started, seen = time.monotonic(), 0
            if self.folder.due():
                self._save()
        at.update(epoch=at["epoch"] + 1, batch=0)
        self._save()
        self.report({"event": "epoch", "epoch": at["epoch"], "step": at["step"], "seconds": round(at["seconds"], 1)})
        return True

    def _batch(self, epoch: int, number: int) -> tuple[Batch, Draws]:
        """This process's share of a batch, and the random numbers that belong to it."""
        recipe, device = self.recipe, self.fabric.device
        indices = self.batches.indices(recipe.seed, epoch, number)
        share = my_share(self.fabric, len(indices))
        images = to_tensor(self.pictures.images(indices[share]), device)
        if recipe.jitter:
            key = (recipe.seed, JITTER_KEY, epoch, number, self.fabric.global_rank)
            images = jittered(images, recipe.jitter, key)
        labels = torch.from_numpy(self.pictures.labels[indices[share]]).to(device)
        draws = Draws(recipe.seed, epoch, number, len(indices), share, device, self.fabric.global_rank)
        return Batch(images, labels), draws

    def _record(self, epoch: int, number: int, batch: Batch, result: BatchResult, rate: float) -> None:
        real, fake = to_images(batch.images), to_images(result.fakes)
        row = self.watch.record(epoch, number, result, self.steps.generator, real, fake)
        # JSON has no NaN, which the correlation of pictures that are all alike is.
        self.at["last_row"] = {name: None if value != value else value for name, value in row.items()}
        self.report({"event": "row", "step": self.at["step"], "images_per_second": round(rate, 2), **row})

    def _save(self) -> None:
        """The files that others read, then the resume state."""
        self._save_networks()
        if self.folder.writes:
            self.folder.save(self.at["step"], {"at": dict(self.at), "networks": self.steps.state()})

    def _save_networks(self) -> None:
        if self.folder.writes:
            save_networks(self.folder.out, self.recipe.version, self.steps.generator, self.steps.discriminator)

    def summary(self, stopped: bool) -> dict[str, Any]:
        """JSON-able."""
        out, recipe, steps = self.folder.out, self.recipe, self.steps
        trained = trained_report(
            {
                "generator": (steps.generator, recipe.generator_trained),
                "discriminator": (steps.discriminator, recipe.discriminator_trained),
            }
        )
        return {
            "recipe": asdict(recipe),
            "generator": str(out / "generator.safetensors"),
            "discriminator": str(out / "discriminator.safetensors"),
            "published": [str(out / generator_file(recipe.version)), str(out / discriminator_file(recipe.version))],
            "resolution": steps.generator.config.resolution,
            "pictures": len(self.pictures),
            "batches_per_epoch": len(self.batches),
            "epochs": self.at["epoch"],
            "steps": self.at["step"],
            "images": self.at["images"],
            "train_seconds": round(self.at["seconds"], 1),
            "processes": self.fabric.world_size,
            "device": str(self.fabric.device),
            "trained": trained,
            "last_row": self.at["last_row"],
            "stopped": stopped,
        }


def load_property_cnn(inputs: FineTuneInputs) -> PropertyCnn | None:
    """The property CNN in evaluation mode, None when none was given."""
    if inputs.property_cnn is None:
        return None
    cnn = checkpoints.load("cnn-property", inputs.property_cnn)
    assert isinstance(cnn, PropertyCnn)
    return cnn


def _start_discriminator(
    recipe: Recipe, inputs: FineTuneInputs, cnn: PropertyCnn | None, generator: Generator
) -> AnyDiscriminator:
    if recipe.discriminator == "property-cnn":
        assert cnn is not None  # FineTuneInputs.require saw to it
        return property_discriminator(recipe, cnn)
    start: Discriminator = inputs.load_discriminator(recipe.smooth_start)
    if start.config.resolution != generator.config.resolution:
        raise InvalidInputError(
            f"the discriminator {inputs.discriminator} looks at {start.config.resolution} pixels, the generator draws "
            f"{generator.config.resolution}: take one that was trained with this generator"
        )
    return start_discriminator(recipe, start)


def _monitor(inputs: FineTuneInputs, fabric: Fabric) -> Monitor | None:
    if inputs.monitor_models is None or not fabric.is_global_zero:
        return None
    return Monitor.load(inputs.monitor_models, accelerator=fabric.device.type)


def _counting(report: Any) -> Any:
    return lambda done, count: report({"event": "pictures", "done": done, "count": count})
