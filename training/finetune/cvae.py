"""FineTune-v3: a conditional VAE of a fresh encoder and the generator, judged by frozen CNNs
(docs/spec/stylegan.md, section 9.3; docs/finetune-conditional.md).

A picture and its scores are encoded to a latent; from it and the same scores the generator draws a picture, and the
property CNN says whether it has those scores. Nothing asks for the same picture again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from ohlora.training import checkpoints
from ohlora.training.finetune.cvae_losses import COLUMNS, LOSSES
from ohlora.training.finetune.cvae_steps import CvaeSteps
from ohlora.training.finetune.draws import Draws
from ohlora.training.finetune.inputs import FineTuneInputs, describe
from ohlora.training.finetune.pictures import Batches, Pictures, open_pictures
from ohlora.training.finetune.property_test import label_columns
from ohlora.training.finetune.property_test_files import epoch_test
from ohlora.training.finetune.published import generator_file, save_networks, write_published
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.finetune.run_folder import CsvLog, RunFolder, TrainingStoppedError
from ohlora.training.finetune.transfer import trained_report
from ohlora.training.gan.data import to_tensor
from ohlora.training.gan.fast import keep_freed_memory
from ohlora.training.loop.distributed import my_share
from ohlora.training.weights.published import published_state

Report = Callable[[dict[str, Any]], None]
LOG = "train_log_{version}.csv"
LOGGED_EPOCHS = 10  # single batches are logged in the first epochs only
MEAN_ROW = "-"


def encoder_file(version: str) -> str:
    """Documented name of the encoder beside its generator."""
    return f"{generator_file(version).removesuffix('.pth')}_encoder.pth"


def checkpoint_file(version: str, epoch: int, part: str) -> str:
    """Documented name of a generator ("gen") or encoder ("enc") that passed the test of an epoch."""
    return f"{generator_file(version).removesuffix('.pth')}_ckpt_{epoch:04d}_{part}.pth"


class CvaeRun:
    """One run in an open folder. See `run`."""

    def __init__(
        self, recipe: Recipe, inputs: FineTuneInputs, fabric: Fabric, folder: RunFolder, report: Report
    ) -> None:
        self.recipe, self.inputs, self.fabric, self.folder, self.report = recipe, inputs, fabric, folder, report
        self.steps = CvaeSteps(recipe, inputs, fabric)
        label_columns(self.steps.generator.config.label_size)  # refuses what the test after an epoch could not judge
        self.pictures: Pictures = open_pictures(recipe, inputs)
        self.batches = Batches(
            len(self.pictures), recipe.batch_size, fabric.world_size, recipe.last_batch, recipe.batches_per_epoch
        )
        z_size = self.steps.generator.config.z_size
        self.state: dict[str, Any] = {
            "epoch": 0, "batch": 0, "step": 0, "sums": [0.0] * len(COLUMNS), "finished": False, "seconds": 0.0,
            "best_epoch": -1, "best_loss": math.inf, "passed": {}, "losses": {}, "test": {},
            "means": torch.zeros(0, z_size), "log_variances": torch.zeros(0, z_size),
        }  # fmt: skip
        if folder.state is not None:
            self.steps.restore(folder.state["nets"])
            self.state = {name: folder.state[name] for name in self.state}
        self.log: CsvLog = folder.log(LOG.format(version=recipe.version), ("epoch", "batch_idx", *COLUMNS))

    def train(self) -> dict[str, Any]:
        recipe, folder, state = self.recipe, self.folder, self.state
        self.pictures.prepare(
            self.steps.generator.config.resolution,
            folder.out / "pictures",
            self.fabric,
            lambda done, count: self.report({"event": "pictures", "done": done, "count": count}),
        )
        self.report({
            "event": "start", "pictures": len(self.pictures), "batches": len(self.batches), "step": state["step"],
        })  # fmt: skip
        try:
            while not state["finished"] and not (recipe.epochs and state["epoch"] >= recipe.epochs):
                if not self._epoch():
                    self._save()
                    return self.summary(stopped=True)
        except TrainingStoppedError:
            self._save()  # the failed step has touched nothing
            raise
        self._save()
        return self.summary(stopped=False)

    def _epoch(self) -> bool:
        """Train to the end of the current epoch; False when stopped before."""
        state, folder = self.state, self.folder
        self.steps.set_epoch(state["epoch"])
        started, first = time.monotonic(), state["batch"]
        while state["batch"] < len(self.batches):
            if folder.should_stop():
                state["seconds"] += time.monotonic() - started
                return False
            self._batch()
            if folder.due():
                self._save()
        seconds = time.monotonic() - started
        state["seconds"] += seconds
        count = len(self.batches)
        means = {name: total / count for name, total in zip(COLUMNS, state["sums"], strict=True)}
        self.log.append({"epoch": state["epoch"], "batch_idx": MEAN_ROW, **means})
        self._test()
        if means["total_loss"] < state["best_loss"]:
            state.update(best_epoch=state["epoch"], best_loss=means["total_loss"])
            self._write_networks()
        state["losses"] = {name: None if math.isnan(value) else value for name, value in means.items()}
        self.report({
            "event": "epoch", "epoch": state["epoch"], **{name: means[name] for name in LOSSES},
            **{f"{name}_corr": figures["correlation"] for name, figures in state["test"].items()},
            "passed": len(state["passed"].get(str(state["epoch"]), ())),
            "images_per_second": self._images(first) / max(seconds, 1e-9),
        })  # fmt: skip
        finished = bool(
            self.recipe.patience
            and state["epoch"] >= self.recipe.min_epochs
            and state["epoch"] - state["best_epoch"] >= self.recipe.patience
        )
        state.update(epoch=state["epoch"] + 1, batch=0, sums=[0.0] * len(COLUMNS), finished=finished)
        self._save()
        return True

    def _images(self, first: int) -> int:
        return sum(self.batches.size(batch) for batch in range(first, len(self.batches)))

    def _batch(self) -> None:
        state, recipe, fabric = self.state, self.recipe, self.fabric
        epoch, batch = state["epoch"], state["batch"]
        indices = self.batches.indices(recipe.seed, epoch, batch)
        share = my_share(fabric, len(indices))
        draws = Draws(recipe.seed, epoch, batch, len(indices), share, fabric.device, fabric.global_rank)
        mine = indices[share]
        image = to_tensor(self.pictures.images(mine), fabric.device)
        label = torch.from_numpy(self.pictures.labels[mine]).to(fabric.device)
        made = self.steps.step(image, label, draws, f"epoch {epoch}, batch {batch}")
        for name, key in (("means", "mean"), ("log_variances", "log_variance")):
            state[name] = torch.cat([state[name], made[key].cpu()[None]])[-recipe.test_kept :]
        # A label of fewer properties leaves columns empty.
        values = {name: float(made[name]) if name in made else math.nan for name in COLUMNS}
        state["sums"] = [total + values[name] for name, total in zip(COLUMNS, state["sums"], strict=True)]
        if epoch < LOGGED_EPOCHS and (batch % recipe.log_every == 0 or (not epoch and batch < recipe.log_first)):
            self.log.append({"epoch": epoch, "batch_idx": batch, **values})
            self.report({"event": "row", "epoch": epoch, "batch": batch, "batches": len(self.batches),
                         **{name: values[name] for name in LOSSES}})  # fmt: skip
        state.update(batch=batch + 1, step=state["step"] + 1)

    def _test(self) -> None:
        """The test after an epoch and, when a latent passes, the networks that made it; by the first process only."""
        state, steps, out = self.state, self.steps, self.folder.out
        if not self.folder.writes:
            self.fabric.barrier()
            return
        test = epoch_test(
            out, self.recipe, state["epoch"], steps.generator, steps.property_cnn, steps.gender_cnn,
            state["means"], state["log_variances"],
        )  # fmt: skip
        state["test"] = test.measured.summary()
        if test.passed:
            version, epoch = self.recipe.version, state["epoch"]
            state["passed"][str(epoch)] = list(test.passed)
            write_published(out / checkpoint_file(version, epoch, "gen"), published_state(steps.generator))
            write_published(out / checkpoint_file(version, epoch, "enc"), published_state(steps.encoder))
        self.fabric.barrier()

    def _write_networks(self) -> None:
        if self.folder.writes:
            out, version = self.folder.out, self.recipe.version
            save_networks(out, version, self.steps.generator, None)
            checkpoints.save(self.steps.encoder, out / "encoder.safetensors", "cvae-encoder-v3")
            write_published(out / encoder_file(version), published_state(self.steps.encoder))

    def _save(self) -> None:
        if self.state["best_epoch"] < 0:  # there shall be weights to look at, whenever it was stopped
            self._write_networks()
        self.folder.save(self.state["step"], {**self.state, "nets": self.steps.state()})

    def summary(self, stopped: bool) -> dict[str, Any]:
        state, out = self.state, self.folder.out
        return {
            "recipe": self.recipe.identity(),
            "inputs": describe(self.inputs),
            "stopped": stopped,
            "epochs": state["epoch"],
            "steps": state["step"],
            "pictures": len(self.pictures),
            "train_seconds": round(state["seconds"], 1),
            "best_epoch": state["best_epoch"],
            "best_loss": state["best_loss"] if state["best_epoch"] >= 0 else None,
            "losses": state["losses"],
            "conditioning": state["test"] or None,
            "passed": state["passed"],
            "trained": trained_report({"generator": (self.steps.generator, self.recipe.generator_trained)}),
            "generator": str(out / "generator.safetensors"),
            "encoder": str(out / "encoder.safetensors"),
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
    """Train encoder and generator by `recipe` in folder `out`; the same call goes on where a stopped one ended.

    Writes generator.safetensors and encoder.safetensors with the documented .pth of both (the epoch of the lowest
    loss; it is not the one that obeys best), the .pth of every epoch of which a latent passed the test, the test
    folders, train_log_v3.csv and checkpoint-*.pt. Arguments, result and errors: `run.run_recipe`; events: "pictures",
    "start", "row", "epoch".
    """
    keep_freed_memory()
    identity = {"recipe": recipe.identity(), "inputs": inputs.identity(recipe)}
    with RunFolder(
        out, identity, fabric, resume=resume, stop_after=stop_after, checkpoint_minutes=recipe.checkpoint_minutes
    ) as folder:
        return CvaeRun(recipe, inputs, fabric, folder, report).train()
