"""The recipe of the stage `parsing`: that of few faces, shorter, with classes weighed by how rare they are."""

from __future__ import annotations

from dataclasses import dataclass, field

from ohlora.base.recipe import setting
from ohlora.training.nets.choices import STUDENT_SIZE
from ohlora.training.students.recipes import DistillConfig, PortraitMix, parse_phases


@dataclass(frozen=True)
class ParsingConfig(DistillConfig):
    """Fields of `DistillConfig`, and balance: each class weighs its share of the pixels to the power of -balance,
    scaled so that the mean over pixels is 1. It is short, as it goes on from a student that knows hair (--start-from).
    """

    loss: str = setting(
        "soft_ce", "soft_ce (shares of pixels) or hard_ce (whole pixels).", choices=("soft_ce", "hard_ce")
    )
    phases: tuple[tuple[int, int], ...] = setting(
        ((128, 10), (STUDENT_SIZE, 6)), "SIZE:EPOCHS,... in order.", read=parse_phases
    )
    learning_rate: float = setting(1.5e-3, "Of AdamW, at its highest.", low=0)
    warmup_steps: int = setting(40, "Steps over which the rate rises.", low=0)
    evaluate_every: int = setting(2, "Epochs from one measurement to the next.", low=1)
    mix: PortraitMix | None = field(default_factory=PortraitMix)
    balance: float = setting(0.35, "0 counts pixels alike, 1 classes alike.", low=0, high=1)
