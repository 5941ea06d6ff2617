"""What the trainings of this room share: batches in epochs, in a run folder, resumed to the bit.

Every random choice is keyed by (seed, epoch, batch, use), so a killed run resumes to the weights an uninterrupted one
gives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sized
from typing import Any

from ohlora.training.finetune.draws import Draws
from ohlora.training.finetune.pictures import Batch, Batches, Pictures
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.states import Parts, load_states, states_of
from ohlora.training.loop.steps import TrainingStoppedError, train_steps
from ohlora.training.nets.stylegan import Generator

Report = Callable[[dict[str, Any]], None]
KIND = "ohlora-finetune-1"  # of the states


class Training:
    """One training in a run folder; a family of recipes says what a batch and the end of an epoch do.

    at: where it stands ("epoch", "batch", "step", "seconds") and what a family adds, of tensors and plain values; it is
    saved, beside the states of `parts`. pictures: None where none are trained on. batches: of an epoch.
    """

    pictures: Pictures | None = None
    batches: Sized
    generator: Generator
    parts: Parts

    def __init__(self, recipe: Recipe, folder: RunFolder, report: Report, **at: Any) -> None:
        self.recipe, self.folder, self.report, self.fabric = recipe, folder, report, folder.fabric
        self.at: dict[str, Any] = {"epoch": 0, "batch": 0, "step": 0, "seconds": 0.0, **at}

    def run(self) -> dict[str, Any]:
        """Train to the end, or to a stop request -> summary."""
        with self.folder:
            return self._run()

    def _run(self) -> dict[str, Any]:
        saved = resumed(self.folder.saved)
        if saved is not None:
            load_states(self.parts, saved["networks"])
            self.at |= saved["at"]
        if self.pictures is not None:
            resolution = self.generator.config.resolution
            self.pictures.load(self.folder, resolution, self._prepared)
        self.begin(fresh=saved is None)
        start = {"step": self.at["step"], "epoch": self.at["epoch"]}
        count = 0 if self.pictures is None else self.pictures.count
        self.report({"event": "start", **start, "pictures": count, "batches": len(self.batches)})
        self._since, self._seen = time.monotonic(), 0
        try:
            with self.folder.stop_requests():
                ended = train_steps(self.folder, self.finished, self._step, self.save)
        except TrainingStoppedError:
            self.rescue()
            raise
        if ended:
            self.end()
        return self.summary(stopped=not ended)

    def _prepared(self, done: int, count: int) -> None:
        self.report({"event": "pictures", "done": done, "count": count})

    def _step(self) -> None:
        at, began = self.at, time.monotonic()
        if not at["batch"]:
            self._since, self._seen = began, 0
        if at["batch"] < len(self.batches):  # older states may stand behind the last batch of an epoch
            self.batch()
            at.update(batch=at["batch"] + 1, step=at["step"] + 1)
        at["seconds"] += time.monotonic() - began
        if at["batch"] == len(self.batches):
            event = self.epoch_ends()
            at.update(epoch=at["epoch"] + 1, batch=0)
            if event is not None:
                self.save()
                self.report({"event": "epoch", **event})

    # What a family says

    def begin(self, *, fresh: bool) -> None:
        """Before the first batch of this call."""

    def batch(self) -> None:
        """Train on batch at["batch"] of epoch at["epoch"]; raises TrainingStoppedError before it changes a weight."""
        raise NotImplementedError

    def epoch_ends(self) -> dict[str, Any] | None:
        """After the last batch of an epoch -> what is reported of it; the state is saved unless that is None."""
        return None

    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return bool(self.recipe.epochs) and self.at["epoch"] >= self.recipe.epochs

    def end(self) -> None:
        """After the last batch of all."""

    def write(self) -> None:
        """Write the files of networks that go with a state; only the first process is asked to."""
        raise NotImplementedError

    # For the families

    def draws(self, count: int) -> Draws:
        """The random numbers of a batch of `count`."""
        return Draws.of(self.fabric, self.recipe.seed, self.at["epoch"], self.at["batch"], count)

    def take(self, pictures: Pictures, batches: Batches) -> tuple[Batch, Draws]:
        """This process's share of the batch at hand, and the random numbers that belong to it."""
        indices = batches.indices(self.recipe.seed, self.at["epoch"], self.at["batch"])
        draws = self.draws(len(indices))
        self._seen += len(indices)
        return pictures.batch(indices[draws.share], self.generator.config.resolution, self.fabric.device), draws

    def images_per_second(self) -> float:
        """Since it was asked last."""
        now, seen = time.monotonic(), self._seen
        rate = seen / max(now - self._since, 1e-9)
        self._since, self._seen = now, 0
        return rate

    def save(self) -> None:
        """The files that others read, then the state."""
        if self.folder.writes:
            self.write()
        state = {"at": dict(self.at), "networks": states_of(self.parts)}
        self.folder.save({"state": state}, self.at["step"])

    def rescue(self) -> None:
        """After TrainingStoppedError: the failed step has touched nothing."""
        self.save()

    def summary(self, stopped: bool) -> dict[str, Any]:
        """JSON-able."""
        return {
            "stopped": stopped,
            "epochs": self.at["epoch"],
            "steps": self.at["step"],
            "train_seconds": round(self.at["seconds"], 1),
            "generator": str(self.folder.out / "generator.safetensors"),
        }


OLDER = {"group": "epoch", "in_group": "batch", "best_group": "best_epoch"}


def resumed(saved: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The state of a run folder: {"at", "networks"}. Older ones had place and networks side by side."""
    if saved is None:
        return None
    state = dict(saved["state"])
    if "at" in state:
        return state
    networks = {name: state.pop(name) for name in ("generator", "optimizer", "property_cnn") if name in state}
    networks |= state.pop("nets", {}) | state.pop("networks", {})
    return {"at": {OLDER.get(name, name): value for name, value in state.items()}, "networks": networks}
