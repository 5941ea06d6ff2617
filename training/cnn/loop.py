"""The training loop of all score CNNs: one attempt, resumable after every epoch
(docs/spec/cnn.md, sections 4, 7 and 9).

Every random choice is keyed by (seed, purpose, epoch), so a killed attempt resumes to the weights an uninterrupted one
gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.base.atomic import write_json
from ohlora.errors import InvalidInputError, OhloraError
from ohlora.training import checkpoints
from ohlora.training.cnn.folds import Split
from ohlora.training.cnn.objectives import Measured, Objective
from ohlora.training.cnn.pictures import Gather, fingerprint, network_input
from ohlora.training.cnn.recipes import LoopRecipe
from ohlora.training.loop.distributed import average_gradients, gathered, mean_of
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.seeds import derive
from ohlora.training.loop.states import Stateful, damaged, load_states, save_tensors, states_of
from ohlora.training.loop.steps import EpochState, require_finite, train_epochs
from ohlora.training.loop.streams import seeded
from ohlora.training.weights.published import published_state

Report = Callable[[dict[str, Any]], None]
T = TypeVar("T")
EVALUATION_BATCH = 32  # documented 4; without dropout the size of a batch changes nothing
SAME_LOSS = 2e-5  # of the kept weights measured again (docs/spec/cnn.md, section 4)


@dataclass(frozen=True)
class Examples:
    """Pictures with their targets, float32 [N,C]."""

    pictures: Gather
    targets: NDArray[np.float32]


class CnnRun(RunFolder):
    """The folder of one training: training_NAME.json says what was asked and done, resume_NAME.pt what is under way.

    parts: of the identity, beside the recipe, the content of the pictures and the number of processes.
    """

    def __init__(
        self,
        name: str,
        out: Path,
        recipe: LoopRecipe,
        pictures: Mapping[int, Path],
        parts: Mapping[str, str | None],
        fabric: Fabric,
        resume: bool,
    ) -> None:
        self.name, self.record = name, out / f"training_{name}.json"
        super().__init__(
            out,
            {"recipe": recipe.identity(), **parts, "processes": fabric.world_size},
            fabric,
            reads={"pictures": pictures.values()},
            older={"pictures": fingerprint(pictures)},
            resume=resume,
            state_file=f"resume_{name}.pt",
            record=f"inputs_{name}.json",
        )

    def recorded(self, parse: Callable[[dict[str, Any]], T]) -> T | None:
        """What an earlier call recorded; None when there is none, or it is to be forgotten.

        Raises InvalidInputError for a damaged record, and when it is another training's.
        """
        if not self.resume or not self.record.is_file():
            return None
        try:
            content = json.loads(self.record.read_text())
            other, result = self.other_than(json.dumps(content["identity"])), parse(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInputError(f"{self.record} is damaged: delete it, or pass --restart") from error
        if other:
            raise InvalidInputError(
                f"{self.out} holds a training for {self.name} {other}: choose another --out, or pass --restart"
            )
        return result

    def write_record(self, **done: Any) -> None:
        if self.writes:
            write_json(self.record, {"identity": json.loads(self.identity), **done}, indent=None)


def finished(state: EpochState, recipe: LoopRecipe) -> bool:
    """Whether the last epoch is reached, or the best one is `patience` epochs old."""
    last = state.epoch - 1
    limit = recipe.epochs is not None and state.epoch >= recipe.epochs
    return last >= 0 and (limit or last - state.best_epoch >= recipe.patience)


class Attempt:
    """An attempt to train a network on one split; resumed where `folder` holds a state of the same purpose.

    purpose: what its seeds are for, e.g. ("gender", "fold", 0, "attempt", 0).
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        examples: Examples,
        split: Split,
        objective: Objective,
        recipe: LoopRecipe,
        *,
        purpose: tuple[str | int, ...],
        folder: RunFolder,
    ) -> None:
        self.examples, self.split, self.objective, self.recipe = examples, split, objective, recipe
        self.purpose, self.folder, self.fabric = purpose, folder, folder.fabric
        if len(split.train) < self.fabric.world_size:
            raise InvalidInputError(
                f"{len(split.train)} training pictures are less than one for each process: use fewer"
            )
        with seeded(derive(recipe.seed, *purpose, "weights"), self.fabric.device):
            network = make()
        self.network = network.to(memory_format=torch.channels_last).to(self.fabric.device)
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.parts: dict[str, Stateful] = {"network": self.network, "optimizer": optimizer}
        self.optimizer, self.state = optimizer, EpochState()
        self.best: dict[str, Tensor] = {}
        saved = folder.saved
        if saved is not None and saved.get("purpose") == list(purpose):  # else of an attempt that is recorded already
            load_states(self.parts, saved)
            self.state, self.best = _progress(saved, folder)

    @property
    def losses(self) -> list[float]:
        return [row["loss"] for row in self.state.log]

    @property
    def figures(self) -> list[dict[str, Any]]:
        """`Measured.row` of every epoch."""
        return [row["figures"] for row in self.state.log]

    def run(self, report: Report = lambda row: None) -> nn.Module:
        """Train until nothing gets better -> the network with the weights of its best epoch.

        report: gets {"epoch", "learning_rate", "loss", "best_epoch", "seconds", **figures} after each epoch. Raises
        TrainingStoppedError when the loss is no longer a number, OhloraError when the kept weights do not measure as
        recorded.
        """

        def reported(row: dict[str, Any]) -> None:
            shown = {key: row[key] for key in ("epoch", "learning_rate", "loss", "seconds")}
            report({**shown, "best_epoch": self.state.best_epoch, **row["figures"]})

        done = partial(finished, recipe=self.recipe)
        train_epochs(self.state, done, self._epoch, keep=self._keep, save=self._save, report=reported)
        self.network.load_state_dict(self.best)
        again = self._measure().loss
        if abs(again - self.state.best) > SAME_LOSS:
            raise OhloraError(
                f"{self._name}: the kept weights have validation loss {again:.6f}, recorded was "
                f"{self.state.best:.6f}; this machine does not compute reliably, train again"
            )
        return self.network.cpu().eval()

    def _epoch(self, epoch: int) -> tuple[dict[str, Any], float]:
        where, rate = f"{self._name}, epoch {epoch}", self.recipe.rate(epoch)
        require_finite(where, {"training": self._train(epoch, rate)})
        measured = self._measure()
        require_finite(where, {"validation": measured.loss})
        row = {"epoch": epoch, "learning_rate": rate, "loss": measured.loss, "figures": measured.row}
        return {**row, "outputs": measured.outputs}, measured.loss

    def _train(self, epoch: int, rate: float) -> Tensor:
        fabric, recipe = self.fabric, self.recipe
        seed = derive(recipe.seed, *self.purpose, "epoch", epoch)
        order = np.random.Generator(np.random.Philox(key=seed)).permutation(self.split.train)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=fabric.device)
        self.network.train()
        # Each process has dropout of its own, for its own pictures.
        with seeded((seed + fabric.global_rank) % 2**63, fabric.device):
            for start in range(0, len(order), recipe.batch_size):
                rows = order[start : start + recipe.batch_size]
                self.optimizer.zero_grad()
                total += self._backward(rows[fabric.global_rank :: fabric.world_size], len(rows))
                average_gradients(fabric, self.network.parameters())
                self.optimizer.step()
        return mean_of(fabric, total)

    def _backward(self, mine: NDArray[np.int64], count: int) -> Tensor:
        """Gradients of this process's part of a batch of `count`; their mean over processes is the batch's."""
        if not len(mine):  # the last batch of an epoch may have fewer pictures than there are processes
            for parameter in self.network.parameters():
                parameter.grad = torch.zeros_like(parameter)
            return torch.zeros((), device=self.fabric.device)
        target = torch.from_numpy(self.examples.targets[mine]).to(self.fabric.device)
        loss = self.objective.loss(self._outputs(mine), target, count)
        (loss * self.fabric.world_size).backward()
        return loss.detach()

    def _outputs(self, rows: NDArray[np.int64]) -> Tensor:
        image = network_input(self.examples.pictures(rows), self.fabric.device, self.objective.signed)
        with self.fabric.autocast():
            return self.objective.raw(self.network, image).float()

    @torch.inference_mode()
    def _measure(self) -> Measured:
        """Held-out pictures with the weights as they are, in evaluation mode, shared among the processes."""
        self.network.eval()
        held, rank = self.split.validation, self.fabric.global_rank
        share = -(-len(held) // self.fabric.world_size)
        # Every process takes as many, the last ones some twice, since gathering needs equal lengths.
        mine = held[np.minimum(np.arange(rank * share, (rank + 1) * share), len(held) - 1)]
        parts = [self._outputs(mine[start : start + EVALUATION_BATCH]) for start in range(0, share, EVALUATION_BATCH)]
        raw = gathered(self.fabric, torch.cat(parts))[: len(held)].cpu().numpy()
        return self.objective.measure(raw, self.examples.targets[held])

    @property
    def _name(self) -> str:
        return " ".join(map(str, self.purpose))

    def _keep(self) -> None:
        self.best = {key: value.detach().cpu().clone() for key, value in self.network.state_dict().items()}

    def _save(self) -> None:
        state = {"purpose": list(self.purpose), "state": vars(self.state), "best": self.best}
        self.folder.save({**state, **states_of(self.parts)})


def _progress(saved: Mapping[str, Any], folder: RunFolder) -> tuple[EpochState, dict[str, Tensor]]:
    """How far an attempt was, and its best weights."""
    try:
        if "attempt" not in saved:
            return EpochState(**saved["state"]), saved["best"]
        old = saved["attempt"]  # as versions before `training/loop` wrote it
        log = [
            {"loss": loss, "figures": row, "outputs": outputs}
            for loss, row, outputs in zip(old["losses"], old["rows"], old["outputs"], strict=True)
        ]
        best = old["best_epoch"]
        return EpochState(len(log), old["losses"][best], best, log, old["seconds"]), old["best_state"]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise damaged(folder.states()[-1], error) from error


def save_network(network: nn.Module, published: Path, own: Path, kind: str) -> None:
    """A score CNN in the published layout and as our own file."""
    save_tensors(published, {key: value.cpu().contiguous() for key, value in published_state(network).items()})
    checkpoints.save(network, own, kind)
