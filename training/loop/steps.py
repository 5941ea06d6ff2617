"""What all loops of trainings share: stepping until the end or a stop, keeping the best epoch, refusing bad numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ohlora.errors import OhloraError
from ohlora.training.loop.run_folder import RunFolder


class TrainingStoppedError(OhloraError):
    """Training met a loss or gradient that is not finite; the weights from before that step are kept."""


def train_steps(
    folder: RunFolder, finished: Callable[[], bool], step: Callable[[], None], save: Callable[[], None]
) -> bool:
    """Step until `finished`, saving when it is time to -> True; False when asked to stop before, which is saved too.

    step: raises TrainingStoppedError before it changes a weight; what is kept is added to the message.
    """
    while not finished():
        if folder.should_stop():
            save()
            return False
        try:
            step()
        except TrainingStoppedError as error:
            raise TrainingStoppedError(
                f"{error}. The weights from before that step are kept; resume from them in another --out with a "
                "smaller learning rate"
            ) from error
        if folder.due():
            save()
    return True


@dataclass
class EpochState:
    """Where a training by epochs stands.

    epoch: how many are finished. best: the figure of the best of them, best_epoch its number, -1 = none yet. log: a row
    each. seconds: of training.
    """

    epoch: int = 0
    best: float = math.inf
    best_epoch: int = -1
    log: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def train_epochs(
    state: EpochState,
    finished: Callable[[EpochState], bool],
    epoch: Callable[[int], tuple[dict[str, Any], float | None]],
    *,
    keep: Callable[[], None],
    save: Callable[[], None] = lambda: None,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    higher_is_better: bool = False,
) -> None:
    """Epochs until `finished`; KeyboardInterrupt ends it within one, and the state of the last whole epoch is resumed.

    epoch: (number) -> (row of the log, figure that chooses the best epoch; None: the last one is the best).
    keep: called for a new best epoch, before save: called after every epoch. report: gets the row, with "seconds".
    Raises TrainingStoppedError, which says what is kept, when a loss of the row is not finite or the figure is NaN.
    """
    while not finished(state):
        began = time.monotonic()
        try:
            row, figure = epoch(state.epoch)
            losses = {name: value for name, value in row.items() if name.endswith("loss") and value is not None}
            require_finite(f"epoch {state.epoch + 1}", losses)
            if figure is not None and math.isnan(figure):
                require_finite(f"epoch {state.epoch + 1}", {"held-out figure": figure})
        except TrainingStoppedError as error:
            raise TrainingStoppedError(f"{error}. {_kept(state)}") from error
        if figure is None or (figure > state.best if higher_is_better else figure < state.best):
            state.best, state.best_epoch = state.best if figure is None else figure, state.epoch
            keep()
        state.epoch += 1
        seconds = time.monotonic() - began
        state.seconds += seconds
        state.log.append({**row, "seconds": round(seconds, 2)})
        save()
        report(state.log[-1])


def _kept(state: EpochState) -> str:
    """What a training by epochs has when one fails, and what to do."""
    if state.best_epoch < 0:
        return "No epoch before it was measured, so no weights are kept: --restart with a smaller learning rate"
    return f"The weights of epoch {state.best_epoch + 1} are kept; use another --out for a smaller learning rate"


def require_finite(where: str, losses: Mapping[str, Tensor | float], norms: Mapping[str, Tensor] | None = None) -> None:
    """Raises TrainingStoppedError when a loss, or a norm of gradients, is NaN or infinite; call before a step is made.

    where: the batch or step, for the message. norms: of gradients, by the network's name.
    """
    for text, values in (("the loss '{}' is {}", losses), ("the gradients of the {} have norm {}", norms or {})):
        for name, value in values.items():
            if not bool(torch.isfinite(torch.as_tensor(value)).all()):
                found = text.format(name, float(torch.as_tensor(value).detach().float().mean()))
                raise TrainingStoppedError(f"training stopped at {where}: {found}")


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients together; 0 where there is none."""
    norms = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())
