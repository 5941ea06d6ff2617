"""FineTune-v2: the generator learns from the property CNN alone, on random latents and labels
(docs/spec/stylegan.md, section 9.2, stage 2; documented as not trainable, what was observed is in
docs/finetune-conditional.md).

A batch of latents and labels is fixed at the start; what a step trains on moves away from it to fresh ones as the step
groups, this recipe's epochs, go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ohlora.training import checkpoints
from ohlora.training.finetune.draws import Draws
from ohlora.training.finetune.inputs import FineTuneInputs
from ohlora.training.finetune.property_test import draw
from ohlora.training.finetune.property_test_files import TestPictures
from ohlora.training.finetune.published import generator_file, write_published
from ohlora.training.finetune.recipes import PROPERTIES, Recipe
from ohlora.training.finetune.scored import LOGGED, ScoredTraining, property_scores, scored_loss
from ohlora.training.finetune.training import Report
from ohlora.training.loop.distributed import my_share
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.streams import normal

GROUP = 50  # steps, unless the recipe says so
FOLDER = "inference_test_during_finetuning_v2"
TEST_LATENTS = 10
TEST_STRENGTH = 1.2
# Signs of the seven test labels, a property each in the order of PROPERTIES; those of v1, with the last left at 0.
TEST_SIGNS = (
    (1, 1, 1, -1, -1, 1, 0),
    (-1, 1, 1, -1, -1, 1, 0),
    (-1, -1, 1, -1, -1, 1, 0),
    (-1, -1, -1, -1, -1, 1, 0),
    (-1, -1, -1, 1, -1, 1, 0),
    (-1, -1, -1, 1, 1, 1, 0),
    (-1, -1, -1, 1, 1, -1, 0),
)
START_DRAW, TEST_DRAW = 33, 34
STEP, LABEL = 400, 401  # uses of a batch's random numbers, beside those of `draws`


def warm_share(group: int, warm: float) -> float:
    """Share of the fixed latents and labels in step group `group`."""
    return warm**group


def shown_labels(properties: Sequence[str] = PROPERTIES) -> NDArray[np.float32]:
    """The seven labels float32 [7, len(properties)] of the pictures after each step group."""
    columns = [PROPERTIES.index(name) for name in properties]
    return np.array(TEST_SIGNS, np.float32)[:, columns] * np.float32(TEST_STRENGTH)


class GuidedTraining(ScoredTraining):
    """The generator, and the property CNN where the recipe trains it too.

    Writes generator.safetensors and the documented .pth (the step group of the lowest loss), the property CNN beside
    them when it is trained, a sheet of test pictures a group and train_log_v2.csv.
    """

    def __init__(self, recipe: Recipe, inputs: FineTuneInputs, folder: RunFolder, report: Report) -> None:
        my_share(folder.fabric, recipe.batch_size)  # refuses a batch that cannot be divided, before anything is loaded
        super().__init__(recipe, inputs, folder, report, first_loss=None, last_loss=None)
        scorer = list(self.property_cnn.parameters()) if recipe.train_scorer else []
        for parameter in scorer:
            parameter.requires_grad_(True)
        self.networks = {"generator": self.generator, "property CNN": self.property_cnn}
        self.optimize(([*self.trained, *scorer], recipe.learning_rate))
        self.parts = {"generator": self.generator, "optimizer": self.optimizer}
        if recipe.train_scorer:
            self.parts["property_cnn"] = self.property_cnn
        self.batches = range(recipe.batches_per_epoch or GROUP)
        self.columns = ("mse", *(f"{LOGGED[name]}_mse" for name in recipe.properties))

    def begin(self, *, fresh: bool) -> None:
        columns = ("step_group", "warm_share", "rate", "loss", *self.columns[1:], "best_group")
        self.log = self.folder.table(f"train_log_{self.recipe.version}.csv", columns)

    def epoch_ends(self) -> dict[str, Any]:
        at, recipe, group = self.at, self.recipe, self.at["epoch"]
        rate = recipe.learning_rate * self.set_rates()
        loss, *errors = self.keep_best().values()
        row = {
            "step_group": group, "warm_share": warm_share(group, recipe.warm), "rate": rate, "loss": loss,
            **dict(zip(self.columns[1:], errors, strict=True)), "best_group": at["best_epoch"],
        }  # fmt: skip
        self.log.append({**row, "rate": f"{rate:.3g}"})  # four decimals would be none
        if self.folder.writes:
            self._test_pictures(group)
        at.update(first_loss=loss if at["first_loss"] is None else at["first_loss"], last_loss=loss)
        return {"epoch": group, **row}

    def inputs_of(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """Latents and labels of this process in a step: the fixed ones and fresh ones, mixed by the group's share."""
        recipe, config = self.recipe, self.generator.config
        fixed = normal((recipe.seed, START_DRAW), draws.count, config.z_size + config.label_size)[draws.share]
        z0, label0 = torch.split(torch.from_numpy(fixed).to(self.device), [config.z_size, config.label_size], 1)
        part = warm_share(draws.epoch, recipe.warm)
        z = part * z0 + (1 - part) * draws.latents(STEP, config.z_size)
        return z, part * label0 + (1 - part) * draws.latents(LABEL, config.label_size)

    def batch(self) -> None:
        at, recipe, generator = self.at, self.recipe, self.generator
        draws = self.draws(recipe.batch_size)
        z, label = self.inputs_of(draws)
        self.set_rates()
        self.set_scorer_mode(self.property_cnn)
        draws.start_dropout(STEP)
        with self.fabric.autocast():
            w = generator.mapping(z, label)
            made = generator.synthesis(generator.broadcast(w), lod=0.0)
            scores = property_scores(self.property_cnn, made, recipe.properties, recipe.scored).float()
        loss = scored_loss(scores, label, recipe.properties, recipe.scored)
        errors = (scores - label).detach().square().mean(0)
        logged = dict(zip(self.columns, (loss, *errors.unbind()), strict=True))
        means = self.apply(loss, w, logged, f"step group {at['epoch']}, step {at['batch']}")
        self.add({name: float(value) for name, value in means.items()})
        if at["step"] % recipe.log_every == 0:
            self.report({"event": "row", "epoch": at["epoch"], "batch": at["batch"], "batches": len(self.batches),
                         "loss": float(means["mse"])})  # fmt: skip

    def _test_pictures(self, group: int) -> None:
        """Ten new latents under each of the seven labels."""
        recipe, config = self.recipe, self.generator.config
        z = normal((recipe.seed, TEST_DRAW, group), TEST_LATENTS, config.z_size)
        folder = self.folder.out / FOLDER / f"step_group_{group:04d}"
        pictures = TestPictures(folder, recipe.dump, columns=TEST_LATENTS, digits=1)
        for label in shown_labels(recipe.properties):
            pictures.add(draw(self.generator, z, np.broadcast_to(label, (len(z), len(label)))))
        pictures.close()

    def write_networks(self) -> None:
        super().write_networks()
        if self.recipe.train_scorer:
            out = self.folder.out
            checkpoints.save(self.property_cnn, out / "property_cnn.safetensors", "cnn-property")
            write_published(out / generator_file(self.recipe.version, "cnn_retrained"), self.property_cnn)

    def summary(self, stopped: bool) -> dict[str, Any]:
        return {**super().summary(stopped), "first_loss": self.at["first_loss"], "last_loss": self.at["last_loss"]}
