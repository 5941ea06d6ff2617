"""The training loop of all score CNNs: one attempt, resumable after every epoch
(docs/spec/cnn.md, sections 4, 7 and 9).

Every random choice is keyed by (seed, purpose, epoch), so a killed attempt goes on to the weights an uninterrupted one
gives.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.base.atomic import atomic_path, explain_os_error
from ohlora.errors import InvalidInputError, OhloraError
from ohlora.training.cnn.folds import Split
from ohlora.training.cnn.objectives import Measured, Objective
from ohlora.training.cnn.pictures import Images, PictureSet, network_input
from ohlora.training.cnn.recipes import LoopRecipe
from ohlora.training.loop.distributed import average_gradients, gathered, mean_of
from ohlora.training.loop.seeds import derive

Report = Callable[[dict[str, Any]], None]
EVALUATION_BATCH = 32  # documented 4; without dropout the size of a batch changes nothing
SAME_LOSS = 2e-5  # of the kept weights measured again (docs/spec/cnn.md, section 4)


@dataclass(frozen=True)
class Examples:
    """Pictures with their targets, float32 [N,C]."""

    pictures: PictureSet
    targets: NDArray[np.float32]


@dataclass
class Attempt:
    """One training: what was measured after each epoch, and the weights of the best one."""

    losses: list[float] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[list[list[float]]] = field(default_factory=list)
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def best_loss(self) -> float:
        return self.losses[self.best_epoch]

    def add(self, measured: Measured, network: nn.Module) -> None:
        self.losses.append(measured.loss)
        self.rows.append(measured.row)
        self.outputs.append(measured.outputs)
        if self.best_epoch < 0 or measured.loss < self.best_loss:
            self.best_epoch = len(self.losses) - 1
            self.best_state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}

    def finished(self, recipe: LoopRecipe) -> bool:
        epoch = len(self.losses) - 1
        limit = recipe.epochs is not None and epoch + 1 >= recipe.epochs
        return epoch >= 0 and (limit or epoch - self.best_epoch >= recipe.patience)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """PyTorch draws from `seed` inside; the caller's random stream is as before afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        torch.manual_seed(seed)
        yield


class Trainer:
    """An attempt to train a network on one split. See `run`.

    purpose: what its seeds are for, e.g. ("gender", "fold", 0, "attempt", 0). resume_file: state after the last
    epoch; identity: what must agree for it to be used.
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
        resume_file: Path,
        identity: str,
        fabric: Fabric,
    ) -> None:
        self.examples, self.split, self.objective, self.recipe = examples, split, objective, recipe
        self.purpose, self.resume_file, self.identity, self.fabric = purpose, resume_file, identity, fabric
        if len(split.train) < fabric.world_size:
            raise InvalidInputError(
                f"{len(split.train)} training pictures are less than one for each process: use fewer"
            )
        with seeded(derive(recipe.seed, *purpose, "weights"), fabric.device):
            network = make()
        self.network = network.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.attempt = Attempt()

    def run(self, report: Report = lambda row: None) -> tuple[nn.Module, Attempt]:
        """Train until nothing gets better -> the network with the weights of its best epoch, and what was measured.

        report: gets {"epoch", "learning_rate", "loss", "best_epoch", "seconds", **figures} after each epoch. Raises
        OhloraError when the loss is no longer a number, or when the kept weights do not measure as recorded.
        """
        self._load()
        while not self.attempt.finished(self.recipe):
            epoch, began = len(self.attempt.losses), time.perf_counter()
            self._train(epoch)
            measured = self.measure()
            self._require_finite(measured.loss, epoch)
            self.attempt.add(measured, self.network)
            self.attempt.seconds += time.perf_counter() - began
            self._save()
            report(
                {
                    "epoch": epoch,
                    "learning_rate": self.recipe.rate(epoch),
                    "loss": measured.loss,
                    "best_epoch": self.attempt.best_epoch,
                    "seconds": self.attempt.seconds,
                    **measured.row,
                }
            )
        self.network.load_state_dict(self.attempt.best_state)
        again = self.measure().loss
        if abs(again - self.attempt.best_loss) > SAME_LOSS:
            raise OhloraError(
                f"{self._name()}: the kept weights have validation loss {again:.6f}, recorded was "
                f"{self.attempt.best_loss:.6f}; this machine does not compute reliably, train again"
            )
        return self.network.cpu().eval(), self.attempt

    def forget(self) -> None:
        """Delete the resume state: the attempt is recorded elsewhere."""
        if self.fabric.is_global_zero:
            self.resume_file.unlink(missing_ok=True)

    # Inside

    def _train(self, epoch: int) -> None:
        fabric, recipe = self.fabric, self.recipe
        seed = derive(recipe.seed, *self.purpose, "epoch", epoch)
        order = np.random.Generator(np.random.Philox(key=seed)).permutation(self.split.train)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(epoch)
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
        self._require_finite(float(mean_of(fabric, total)), epoch)

    def _backward(self, mine: NDArray[np.int64], count: int) -> Tensor:
        """Gradients of this process's part of a batch of `count`; their mean over processes is the batch's."""
        if not len(mine):  # the last batch of an epoch may have fewer pictures than there are processes
            for parameter in self.network.parameters():
                parameter.grad = torch.zeros_like(parameter)
            return torch.zeros((), device=self.fabric.device)
        image = network_input(self.examples.pictures.gather(mine), self.fabric.device, self.objective.signed)
        target = torch.from_numpy(self.examples.targets[mine]).to(self.fabric.device)
        with self.fabric.autocast():
            raw = self.objective.raw(self.network, image)
        loss = self.objective.loss(raw.float(), target, count)
        (loss * self.fabric.world_size).backward()
        return loss.detach()

    def measure(self) -> Measured:
        """Held-out pictures with the weights as they are, in evaluation mode."""
        held = self.split.validation
        raw = outputs_of(
            lambda image: self.objective.raw(self.network.eval(), image),
            lambda rows: self.examples.pictures.gather(held[rows]),
            len(held),
            self.objective.signed,
            self.fabric,
        )
        return self.objective.measure(raw, self.examples.targets[held])

    def _name(self) -> str:
        return " ".join(map(str, self.purpose))

    def _require_finite(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise OhloraError(
                f"{self._name()}: the loss is {loss} in epoch {epoch}, training stopped; what was reached before is "
                "kept. Use a lower learning rate and another output folder"
            )

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        attempt = self.attempt
        save_tensors(
            self.resume_file,
            {
                "identity": self.identity,
                "purpose": list(self.purpose),
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "attempt": vars(attempt),
            },
        )

    def _load(self) -> None:
        self.fabric.barrier()
        if not self.resume_file.is_file():
            return
        saved = load_tensors(self.resume_file)
        try:
            if saved["identity"] != self.identity or saved["purpose"] != list(self.purpose):
                return  # of an attempt that is recorded already
            self.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.attempt = Attempt(**saved["attempt"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise damaged(self.resume_file, error) from error


@torch.inference_mode()
def outputs_of(
    network: Callable[[Tensor], Tensor],
    gather: Callable[[NDArray[np.int64]], Images],
    count: int,
    signed: bool,
    fabric: Fabric,
) -> NDArray[np.float32]:
    """network([N,3,256,256]) -> [N,C] of pictures 0 .. count - 1, in batches, shared among the processes -> [count,C].

    The caller puts the network into evaluation mode.
    """
    world = fabric.world_size
    share = -(-count // world)
    # Every process takes as many, the last ones some twice, since gathering needs equal lengths.
    mine = np.minimum(np.arange(fabric.global_rank * share, (fabric.global_rank + 1) * share), count - 1)
    parts = []
    for start in range(0, share, EVALUATION_BATCH):
        image = network_input(gather(mine[start : start + EVALUATION_BATCH]), fabric.device, signed)
        with fabric.autocast():
            parts.append(network(image).float())
    return gathered(fabric, torch.cat(parts))[:count].cpu().numpy()


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """torch.save, atomic. Raises OutputError."""
    try:
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except RuntimeError as error:  # what PyTorch makes of a disk that is full
        cause = error.__context__ if isinstance(error.__context__, OSError) else OSError(28, str(error))
        raise explain_os_error(path, cause) from error


def load_tensors(path: Path) -> dict[str, Any]:
    """What `save_tensors` wrote, on the CPU. Raises InvalidInputError when it is damaged."""
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # the unpickler raises whatever the bytes make it raise
        raise damaged(path, error) from error
    return content


def damaged(path: Path, error: Exception) -> InvalidInputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return InvalidInputError(f"cannot resume from {path}: {reason}; delete it or start over")
