"""The loop of the GAN recipes v1, v4, v5, v8 and v9 (docs/spec/stylegan.md, sections 8 and 9)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.cnn.ensemble import Monitor
from ohlora.training.finetune.gan_steps import GanSteps
from ohlora.training.finetune.gan_watch import GanWatch
from ohlora.training.finetune.inputs import FineTuneInputs, load_discriminator, load_generator
from ohlora.training.finetune.pictures import Batches, Pictures, jittered, open_pictures
from ohlora.training.finetune.published import discriminator_file, generator_file, save_networks
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.finetune.training import Report, Training
from ohlora.training.finetune.transfer import (
    AnyDiscriminator,
    property_discriminator,
    start_discriminator,
    start_generator,
    trained_report,
)
from ohlora.training.gan.data import to_images
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.nets.score_cnns import PropertyCnn

JITTER_KEY = 8


class GanTraining(Training):
    """Generator and discriminator. Writes both as .safetensors and as the documented .pth, the documented logs and
    pictures (`gan_watch`).
    """

    pictures: Pictures
    batches: Batches

    def __init__(self, recipe: Recipe, inputs: FineTuneInputs, folder: RunFolder, report: Report) -> None:
        super().__init__(recipe, folder, report, images=0, generator_before=None, last_row={})
        self.inputs, self.pictures = inputs, open_pictures(recipe, inputs)
        self.batches = Batches.of(recipe, self.pictures.count, self.fabric)
        if recipe.discriminator == "stylegan":
            self.batches.require_groups(recipe.group)
        self.generator = start_generator(recipe, load_generator(inputs.generator, smooth=recipe.smooth_start))
        self.cnn: PropertyCnn | None = None
        if inputs.property_cnn is not None:
            cnn = checkpoints.load_as(PropertyCnn, "cnn-property", inputs.property_cnn)
            self.cnn = cnn.to(self.fabric.device).requires_grad_(False)
        self.steps = GanSteps(recipe, self.fabric, self.generator, self._start_discriminator())
        self.parts = self.steps.parts
        self.monitor: Monitor | None = None
        if inputs.monitor_models is not None and folder.writes:
            self.monitor = Monitor.load(inputs.monitor_models, accelerator=self.fabric.device.type)

    def _start_discriminator(self) -> AnyDiscriminator:
        recipe, inputs = self.recipe, self.inputs
        if self.cnn is not None and recipe.discriminator == "property-cnn":
            return property_discriminator(recipe, self.cnn)
        start = load_discriminator(inputs.path("discriminator"), smooth=recipe.smooth_start)
        if start.config.resolution != self.generator.config.resolution:
            raise InvalidInputError(
                f"the discriminator {inputs.discriminator} looks at {start.config.resolution} pixels, the generator "
                f"draws {self.generator.config.resolution}: take one that was trained with this generator"
            )
        return start_discriminator(recipe, start)

    def begin(self, *, fresh: bool) -> None:
        self.watch = GanWatch(self.recipe, self.folder, self.cnn, self.monitor)
        if fresh:
            self.watch.before(self.generator)

    def batch(self) -> None:
        recipe, at = self.recipe, self.at
        epoch, number = at["epoch"], at["batch"]
        batch, draws = self.take(self.pictures, self.batches)
        if recipe.jitter:
            key = (recipe.seed, JITTER_KEY, epoch, number, self.fabric.global_rank)
            batch.images = jittered(batch.images, recipe.jitter, key)
        result = self.steps.train_batch(batch, draws, at["generator_before"], f"epoch {epoch}, batch {number}")
        at.update(images=at["images"] + draws.count, generator_before=result.g_losses[-1])
        if self.watch.wanted(epoch, number):
            rate = self.images_per_second()
            real, fake = to_images(batch.images), to_images(result.fakes)
            row = self.watch.record(epoch, number, result, self.generator, real, fake)
            # JSON has no NaN, which the correlation of pictures that are all alike is.
            at["last_row"] = {name: None if value != value else value for name, value in row.items()}
            self.report({"event": "row", "step": at["step"] + 1, "images_per_second": round(rate, 2), **row})

    def epoch_ends(self) -> dict[str, Any]:
        return {"epoch": self.at["epoch"] + 1, "step": self.at["step"], "seconds": round(self.at["seconds"], 1)}

    def end(self) -> None:
        self.watch.after(self.generator)

    def write(self) -> None:
        save_networks(self.folder.out, self.recipe.version, self.generator, self.steps.discriminator)

    def rescue(self) -> None:
        if self.folder.writes:  # a state within a batch would not resume to the weights of an uninterrupted run
            self.write()

    def summary(self, stopped: bool) -> dict[str, Any]:
        out, recipe, at = self.folder.out, self.recipe, self.at
        trained = (self.generator, recipe.generator_trained), (self.steps.discriminator, recipe.discriminator_trained)
        return {
            "recipe": asdict(recipe),
            **super().summary(stopped),
            "discriminator": str(out / "discriminator.safetensors"),
            "published": [str(out / generator_file(recipe.version)), str(out / discriminator_file(recipe.version))],
            "resolution": self.generator.config.resolution,
            "pictures": self.pictures.count,
            "batches_per_epoch": len(self.batches),
            "images": at["images"],
            "processes": self.fabric.world_size,
            "device": str(self.fabric.device),
            "trained": trained_report(*trained),
            "last_row": at["last_row"],
            "inputs": self.inputs.describe(),
        }
