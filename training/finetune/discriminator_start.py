"""A start discriminator for generators that come without one, such as the demo generator.

The generator stays as it is; a fresh discriminator learns to tell its pictures from real ones, by the same update as
in the recipes. Fine-tuning can then begin as if the two had been trained together.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric import Fabric

from ohlora.errors import InvalidInputError
from ohlora.io.numbered_images import numbered_images
from ohlora.training import checkpoints
from ohlora.training.finetune.draws import DISCRIMINATOR
from ohlora.training.finetune.gan_steps import GanSteps
from ohlora.training.finetune.inputs import MADE_BY, fingerprint, load_generator
from ohlora.training.finetune.pictures import Batches, Pictures
from ohlora.training.finetune.recipes import DiscriminatorStart
from ohlora.training.finetune.training import KIND, Report, Training
from ohlora.training.gan.fast import keep_freed_memory
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.streams import seeded
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator

LOG = "train_log.csv"
COLUMNS = ("step", "d_loss", "real_scores_mean", "fake_scores_mean")
INITIAL = 13  # stream of the fresh weights


class DiscriminatorTraining(Training):
    """The discriminator against a frozen generator. Writes discriminator.safetensors and train_log.csv."""

    pictures: Pictures
    batches: Batches

    def __init__(
        self, settings: DiscriminatorStart, generator: Generator, pictures: Pictures, folder: RunFolder, report: Report
    ) -> None:
        recipe = settings.recipe()
        super().__init__(recipe, folder, report, row={})
        self.settings, self.generator, self.pictures = settings, generator, pictures
        self.batches = Batches.of(recipe, pictures.count, self.fabric)
        self.batches.require_groups(settings.group)
        with seeded(settings.seed * 1009 + INITIAL):
            self.discriminator = Discriminator(settings.network(generator.config))
        self.steps = GanSteps(recipe, self.fabric, generator, self.discriminator)
        self.parts = self.steps.parts

    def begin(self, *, fresh: bool) -> None:
        self.log = self.folder.table(LOG, COLUMNS)
        self.at["epoch"], self.at["batch"] = divmod(self.at["step"], len(self.batches))

    def batch(self) -> None:
        step, settings = self.at["step"] + 1, self.settings
        batch, draws = self.take(self.pictures, self.batches)
        loss, real, fake = self.steps.update_discriminator(batch, draws, DISCRIMINATOR, f"step {step - 1}")
        if step % settings.log_every == 0 or step == settings.steps:
            scores = {"real_scores_mean": float(real.mean()), "fake_scores_mean": float(fake.mean())}
            self.at["row"] = {"step": step, "d_loss": loss, **scores}
            self.log.append(self.at["row"])
            self.report({"event": "row", **self.at["row"]})

    def finished(self) -> bool:
        return bool(self.at["step"] >= self.settings.steps)

    def end(self) -> None:
        self.save()

    def write(self) -> None:
        checkpoints.save(self.discriminator, self.folder.out / "discriminator.safetensors", "discriminator")

    def summary(self, stopped: bool) -> dict[str, Any]:
        config = self.discriminator.config
        return {
            "discriminator": str(self.folder.out / "discriminator.safetensors"),
            "resolution": config.resolution,
            "channel_base": config.channel_base,
            "channel_max": config.channel_max,
            "pictures": self.pictures.count,
            "steps": self.at["step"],
            "last_row": self.at["row"],
            "stopped": stopped,
        }


def train_discriminator(
    generator_file: Path | str,
    images: Path,
    out: Path,
    settings: DiscriminatorStart | None = None,
    *,
    resume: bool = True,
    fabric: Fabric | None = None,
    report: Report = lambda event: None,
    stop_after: int = 0,
) -> dict[str, Any]:
    """Train a discriminator against the frozen generator -> summary; OUT/discriminator.safetensors is the result.

    generator_file, images: as in `FineTuneInputs`. The same call resumes where a stopped one ended. Raises
    InvalidInputError for pictures that make no batch, a batch that cannot be grouped and another run's folder,
    TrainingStoppedError, OutputError.
    """
    settings, fabric = settings or DiscriminatorStart(), fabric or make_fabric()
    if not Path(images).is_dir():
        raise InvalidInputError(f"no {MADE_BY['images'][0]} {images}: they are made by {MADE_BY['images'][1]}")
    generator = load_generator(generator_file)
    files = numbered_images(images)
    pictures = Pictures(files, np.zeros((len(files), generator.config.label_size), np.float32))
    keep_freed_memory()
    identity = {
        # A run can be made longer.
        "settings": {name: value for name, value in asdict(settings).items() if name not in ("steps", "log_every")},
        "inputs": {"generator": fingerprint(Path(generator_file)), "images": fingerprint(Path(images))},
        "processes": {"number": fabric.world_size},
    }
    reads = {"pictures": files.values()}
    folder = RunFolder(Path(out), identity, fabric, reads=reads, resume=resume, stop_after=stop_after, kind=KIND)
    return DiscriminatorTraining(settings, generator, pictures, folder, report).run()
