"""The recipe of the portrait reader."""

from __future__ import annotations

from dataclasses import dataclass

from ohlora.base.recipe import check, setting


@dataclass(frozen=True)
class ReaderConfig:
    """A recipe."""

    size: int = setting(128, "Pixels that the network looks at, a multiple of 32.", low=32, step=32)
    width: int = setting(24, "Channels of its first layer.", low=1)
    pictures: int = setting(6000, "Portraits to paint and learn from.", low=1)
    held_out: int = setting(500, "Further ones for judging it.", low=1)
    epochs: int = setting(14, "Passes over the portraits.", low=1)
    batch_size: int = setting(64, "Portraits a step.", low=1)
    learning_rate: float = setting(2e-3, "At its highest.", above=0)
    seed: int = setting(0, "Of portraits, weights and order.", low=0)

    def __post_init__(self) -> None:
        check(self, "reader: ")
