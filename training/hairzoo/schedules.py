"""Learning rates by epoch (docs/spec/segmentation.md, section 8). Rates are those an epoch is
trained with, epochs from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ohlora.errors import InvalidInputError
from ohlora.training.hairzoo.config import WARMING, ZooConfig

T_MAX = 4  # CosineAnnealingLR: epochs from top to bottom; then it climbs back
T_0 = 4  # CosineAnnealingWarmRestarts: epochs until it jumps to the top again
FACTOR, PATIENCE, EPS = 0.2, 4, 1e-6  # ReduceLROnPlateau
THRESHOLD = 1e-4  # PyTorch's default: better means better by this part of the best value


def cosine(top: float, bottom: float, position: float) -> float:
    """From `top` (position 0) to `bottom` (position 1)."""
    return bottom + (top - bottom) * (1 + math.cos(math.pi * position)) / 2


def gradual_warmup_v2(config: ZooConfig, epoch: int) -> float:
    """Warm up to `warmup_factor` times the base, then one cosine over the remaining epochs.

    The published loop steps the scheduler with the number of the epoch that has just ended, so everything comes one
    epoch late: the base rate serves twice, and so does the top of the cosine, whose second epoch is then skipped. The
    documented table has these marks, and so have we.
    """
    step, warm = max(epoch - 1, 0), config.warmup_epochs
    if step <= warm:
        return config.encoder_lr * ((config.warmup_factor - 1) * step / warm + 1)
    done = 0 if step == warm + 1 else step - warm
    period = config.epochs - warm
    bottom = config.min_lr if config.floor else 0.0
    return cosine(config.encoder_lr * config.warmup_factor, bottom, (done % period) / period)


BY_EPOCH: dict[str, Callable[[ZooConfig, int], float]] = {
    WARMING: gradual_warmup_v2,
    # Down to min_lr in T_MAX epochs, up again in as many, and so on.
    "CosineAnnealingLR": lambda config, epoch: cosine(config.encoder_lr, config.min_lr, epoch / T_MAX),
    # Down towards min_lr in T_0 epochs, then from the top again.
    "CosineAnnealingWarmRestarts": lambda config, epoch: cosine(config.encoder_lr, config.min_lr, epoch % T_0 / T_0),
}


class Schedule:
    """The learning rate of the next epoch. `after_epoch(dice)` moves on; the state is plain numbers."""

    def __init__(self, config: ZooConfig) -> None:
        self.config = config
        self.state: dict[str, Any] = {
            "name": config.scheduler, "last_epoch": 0, "rate": config.encoder_lr, "best": -math.inf, "bad_epochs": 0,
        }  # fmt: skip

    @property
    def rate(self) -> float:
        by_epoch = BY_EPOCH.get(self.config.scheduler)
        return by_epoch(self.config, self.state["last_epoch"]) if by_epoch else float(self.state["rate"])

    def after_epoch(self, dice: float) -> None:
        """dice: of the held-out pictures; only ReduceLROnPlateau looks at it."""
        state = self.state
        state["last_epoch"] += 1
        if self.config.scheduler in BY_EPOCH:
            return
        # Reduced after more than PATIENCE epochs without a better Dice. The published program hands the Dice to a
        # scheduler that waits for it to fall; ours waits for it to rise. As torch: relative, and a first value counts.
        if state["best"] == -math.inf or dice > state["best"] * (1 + THRESHOLD):
            state["best"], state["bad_epochs"] = dice, 0
            return
        state["bad_epochs"] += 1
        if state["bad_epochs"] > PATIENCE:
            lower = max(state["rate"] * FACTOR, self.config.min_lr if self.config.floor else 0.0)
            if state["rate"] - lower > EPS:
                state["rate"] = lower
            state["bad_epochs"] = 0

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises InvalidInputError for the state of another scheduler."""
        if state.keys() != self.state.keys() or state["name"] != self.config.scheduler:
            raise InvalidInputError(f"this is no state of {self.config.scheduler}: {', '.join(map(str, state))[:100]}")
        self.state = dict(state)
