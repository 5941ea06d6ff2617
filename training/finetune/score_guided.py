"""FineTune-v2: the generator learns from the property CNN alone, on random latents and labels
(docs/spec/stylegan.md, section 9.2, stage 2; documented as not trainable, what was observed is in
docs/finetune-conditional.md).

A batch of latents and labels is fixed at the start; what a step trains on moves away from it to fresh ones as the step
groups go by.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from ohlora.training import checkpoints
from ohlora.training.finetune.cvae_losses import (
    LOGGED,
    property_scores,
    require_scored,
    scored_loss,
    set_scorer_mode,
)
from ohlora.training.finetune.cvae_steps import load_property_cnn, rate_factor, require_plain
from ohlora.training.finetune.draws import Draws
from ohlora.training.finetune.inputs import FineTuneInputs, describe
from ohlora.training.finetune.property_test import draw
from ohlora.training.finetune.property_test_files import PictureFiles
from ohlora.training.finetune.published import generator_file, save_networks, write_published
from ohlora.training.finetune.recipes import PROPERTIES, Recipe
from ohlora.training.finetune.run_folder import RunFolder, TrainingStoppedError, require_finite
from ohlora.training.finetune.transfer import start_generator, train_only, trained_parameters, trained_report
from ohlora.training.gan.fast import in_channels_last, keep_freed_memory
from ohlora.training.gan.loop import normal
from ohlora.training.loop.distributed import average_gradients, mean_of, my_share
from ohlora.training.weights.published import published_state

Report = Callable[[dict[str, Any]], None]
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


class GuidedRun:
    """One run in an open folder. See `run`."""

    def __init__(
        self, recipe: Recipe, inputs: FineTuneInputs, fabric: Fabric, folder: RunFolder, report: Report
    ) -> None:
        require_scored(recipe)
        require_plain(recipe)
        my_share(fabric, recipe.batch_size)  # refuses a batch that cannot be divided, before anything is loaded
        self.recipe, self.inputs, self.fabric, self.folder, self.report = recipe, inputs, fabric, folder, report
        start = inputs.load_generator(recipe.smooth_start)
        self.generator = in_channels_last(start_generator(recipe, start), fabric.device).train()
        self.property_cnn = in_channels_last(load_property_cnn(inputs), fabric.device)
        self.trained = trained_parameters(self.generator, recipe.generator_trained)
        train_only(self.generator, self.trained)
        scorer = list(self.property_cnn.parameters()) if recipe.train_scorer else []
        for parameter in scorer:
            parameter.requires_grad_(True)
        self.parameters = [*self.trained, *scorer]
        self.optimizer = torch.optim.AdamW(
            self.parameters, recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        self.size = recipe.batches_per_epoch or GROUP
        self.names = [LOGGED[name] for name in recipe.properties]
        self.state: dict[str, Any] = {
            "group": 0, "in_group": 0, "step": 0, "sums": [0.0] * (1 + len(self.names)), "best_group": -1,
            "best_loss": math.inf, "finished": False, "seconds": 0.0, "first_loss": None, "last_loss": None,
        }  # fmt: skip
        if folder.state is not None:
            self._restore(folder.state)
        columns = ("step_group", "warm_share", "rate", "loss", *(f"{name}_mse" for name in self.names), "best_group")
        self.log = folder.log(f"train_log_{recipe.version}.csv", columns)

    def train(self) -> dict[str, Any]:
        recipe, state = self.recipe, self.state
        self.report({"event": "start", "pictures": 0, "batches": self.size, "step": state["step"]})
        try:
            while not state["finished"] and not (recipe.epochs and state["group"] >= recipe.epochs):
                if not self._group():
                    self._save()
                    return self.summary(stopped=True)
        except TrainingStoppedError:
            self._save()  # the failed step has touched nothing
            raise
        self._save()
        return self.summary(stopped=False)

    def _group(self) -> bool:
        """Train to the end of the current step group; False when stopped before."""
        state, recipe = self.state, self.recipe
        factor = rate_factor(state["group"], recipe.cosine)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * factor
        started = time.monotonic()
        while state["in_group"] < self.size:
            if self.folder.should_stop():
                state["seconds"] += time.monotonic() - started
                return False
            self._step()
            if self.folder.due():
                self._save()
        state["seconds"] += time.monotonic() - started
        self._group_ends(factor)
        return True

    def _group_ends(self, factor: float) -> None:
        state, recipe = self.state, self.recipe
        number = state["group"]
        loss, *errors = (total / self.size for total in state["sums"])
        if loss < state["best_loss"]:
            state.update(best_loss=loss, best_group=number)
            self._write_networks()
        row = {
            "step_group": number, "warm_share": warm_share(number, recipe.warm), "rate": recipe.learning_rate * factor,
            "loss": loss, **{f"{name}_mse": error for name, error in zip(self.names, errors, strict=True)},
            "best_group": state["best_group"],
        }  # fmt: skip
        self.log.append({**row, "rate": f"{row['rate']:.3g}"})  # four decimals would be none
        if self.folder.writes:
            self._test_pictures(number)
        self.report({"event": "epoch", "epoch": number, **row})
        state["first_loss"] = loss if state["first_loss"] is None else state["first_loss"]
        state.update(
            group=number + 1, in_group=0, sums=[0.0] * len(state["sums"]), last_loss=loss,
            finished=bool(recipe.patience and number - state["best_group"] >= recipe.patience),
        )  # fmt: skip
        self._save()

    def inputs_of(self, group: int, step: int) -> tuple[Tensor, Tensor]:
        """Latents and labels of this process in a step: the fixed ones and fresh ones, mixed by the group's share."""
        recipe, config, fabric = self.recipe, self.generator.config, self.fabric
        count, share = recipe.batch_size, my_share(fabric, recipe.batch_size)
        fixed = normal((recipe.seed, START_DRAW), count, config.z_size + config.label_size)[share]
        z0, label0 = torch.from_numpy(fixed).to(fabric.device).split([config.z_size, config.label_size], 1)
        draws = self._draws(group, step)
        part = warm_share(group, recipe.warm)
        z = part * z0 + (1 - part) * draws.latents(STEP, config.z_size)
        return z, part * label0 + (1 - part) * draws.latents(LABEL, config.label_size)

    def _draws(self, group: int, step: int) -> Draws:
        fabric, count = self.fabric, self.recipe.batch_size
        return Draws(self.recipe.seed, group, step, count, my_share(fabric, count), fabric.device, fabric.global_rank)

    def _step(self) -> None:
        state, recipe, generator = self.state, self.recipe, self.generator
        z, label = self.inputs_of(state["group"], state["in_group"])
        set_scorer_mode(recipe, self.property_cnn)
        self._draws(state["group"], state["in_group"]).start_dropout(STEP)
        with self.fabric.autocast():
            w = generator.mapping(z, label)
            made = generator.synthesis(generator.broadcast(w), lod=0.0)
            scores = property_scores(self.property_cnn, made, recipe.properties, recipe.scored).float()
        loss = scored_loss(scores, label, recipe.properties, recipe.scored)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        average_gradients(self.fabric, self.parameters)
        errors = (scores - label).detach().square().mean(0)
        logged = mean_of(self.fabric, torch.cat([loss.detach().float()[None], errors]))
        where = f"step group {state['group']}, step {state['in_group']}"
        require_finite(where, {"mse": logged[0]}, {"generator": generator, "property CNN": self.property_cnn})
        self.optimizer.step()
        if recipe.w_avg_decay < 1.0:  # after the step, so that one that fails leaves nothing changed
            generator.update_w_avg(mean_of(self.fabric, w.detach().float().mean(0))[None], recipe.w_avg_decay)
        state["sums"] = [total + value for total, value in zip(state["sums"], logged.tolist(), strict=True)]
        if state["step"] % recipe.log_every == 0:
            self.report({"event": "row", "epoch": state["group"], "batch": state["in_group"], "batches": self.size,
                         "loss": float(logged[0])})  # fmt: skip
        state.update(in_group=state["in_group"] + 1, step=state["step"] + 1)

    def _test_pictures(self, group: int) -> None:
        """Ten new latents under each of the seven labels."""
        recipe, config = self.recipe, self.generator.config
        z = normal((recipe.seed, TEST_DRAW, group), TEST_LATENTS, config.z_size)
        labels = shown_labels(recipe.properties)
        folder = self.folder.out / FOLDER / f"step_group_{group:04d}"
        pictures = PictureFiles(folder, recipe.dump, "test_img", TEST_LATENTS, digits=1)
        for label in labels:
            pictures.add(draw(self.generator, z, np.broadcast_to(label, (len(z), len(label)))))
        pictures.close()

    # Files

    def _write_networks(self) -> None:
        if not self.folder.writes:
            return
        out, recipe = self.folder.out, self.recipe
        save_networks(out, recipe.version, self.generator, None)
        if recipe.train_scorer:
            checkpoints.save(self.property_cnn, out / "property_cnn.safetensors", "cnn-property")
            name = f"{generator_file(recipe.version).removesuffix('.pth')}_cnn_retrained.pth"
            write_published(out / name, published_state(self.property_cnn))

    def _save(self) -> None:
        if self.state["best_group"] < 0:  # there shall be weights to look at, whenever it was stopped
            self._write_networks()
        state = {**self.state, "generator": self.generator.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.recipe.train_scorer:
            state["property_cnn"] = self.property_cnn.state_dict()
        self.folder.save(self.state["step"], state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.recipe.train_scorer:
            self.property_cnn.load_state_dict(state["property_cnn"])
        self.state = {name: copy.copy(state[name]) for name in self.state}

    def summary(self, stopped: bool) -> dict[str, Any]:
        state, out = self.state, self.folder.out
        return {
            "recipe": self.recipe.identity(),
            "inputs": describe(self.inputs),
            "stopped": stopped,
            "epochs": state["group"],
            "steps": state["step"],
            "train_seconds": round(state["seconds"], 1),
            "best_epoch": state["best_group"],
            "best_loss": state["best_loss"] if state["best_group"] >= 0 else None,
            "first_loss": state["first_loss"],
            "last_loss": state["last_loss"],
            "trained": trained_report({"generator": (self.generator, self.recipe.generator_trained)}),
            "generator": str(out / "generator.safetensors"),
        }


def run(
    recipe: Recipe,
    inputs: FineTuneInputs,
    out: Path,
    *,
    resume: bool = True,
    fabric: Fabric,
    report: Report = lambda event: None,
    stop_after: int = 0,
) -> dict[str, Any]:
    """Train the generator by `recipe` in folder `out`; the same call goes on where a stopped one ended.

    Writes generator.safetensors and the documented .pth (the step group of the lowest loss), the property CNN beside
    them when the recipe trains it too, a sheet of test pictures a group, train_log_v2.csv and checkpoint-*.pt.
    Arguments, result and errors: `run.run_recipe`; events: "start", "row", "epoch" (a step group).
    """
    keep_freed_memory()
    identity = {"recipe": recipe.identity(), "inputs": inputs.identity(recipe)}
    with RunFolder(
        out, identity, fabric, resume=resume, stop_after=stop_after, checkpoint_minutes=recipe.checkpoint_minutes
    ) as folder:
        return GuidedRun(recipe, inputs, fabric, folder, report).train()
