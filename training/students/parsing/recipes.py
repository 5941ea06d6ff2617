"""The recipe of the stage `parsing`: that of few faces, shorter, with classes weighed by how rare they are."""

from __future__ import annotations

from dataclasses import dataclass, field

from ohlora.errors import InvalidInputError
from ohlora.training.nets.effisegnet import SIZE
from ohlora.training.students.recipes import DistillConfig, PortraitMix

CLASS_LOSSES = ("soft_ce", "hard_ce")


@dataclass(frozen=True)
class ParsingConfig(DistillConfig):
    """Fields of `DistillConfig`, and balance: each class weighs its share of the pixels to the power of -balance,
    scaled so that the mean over pixels is 1. 0 counts pixels alike, 1 classes alike. loss: "soft_ce" learns the
    shares of the classes in a pixel, "hard_ce" the class that has most of it.

    It is short, as it goes on from a student that knows hair (--start-from).
    """

    loss: str = "soft_ce"
    phases: tuple[tuple[int, int], ...] = ((128, 10), (SIZE, 6))
    learning_rate: float = 1.5e-3
    warmup_steps: int = 40
    evaluate_every: int = 2
    mix: PortraitMix | None = field(default_factory=PortraitMix)
    balance: float = 0.35

    def __post_init__(self) -> None:
        if self.loss not in CLASS_LOSSES:
            raise InvalidInputError(f"unknown loss '{self.loss}' for classes: choose {' or '.join(CLASS_LOSSES)}")
        if not 0 <= self.balance <= 1:
            raise InvalidInputError(f"--balance must be in [0, 1], got {self.balance:g}")
