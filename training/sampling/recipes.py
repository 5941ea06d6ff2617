"""What the documents sampled, as data (docs/spec/stylegan.md, section 6, and section 13, P1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ohlora.base.recipe import changed, check, pick, setting
from ohlora.faces import MAX_FACES, MAX_SEED

LabelMode = Literal["none", "normal", "zeros"]
MAX_NUMBER = 10**12


@dataclass(frozen=True)
class SampleSettings:
    """One set of sampled pictures, numbered first_number, first_number + 1, ...

    Picture number n shows the seed first_seed + n: its z and, with `labels="normal"`, its label are those of
    `ohlora render --faces SEED`. A picture is the same in any batch up to float rounding.
    train_mode: sample as the published code did, which left the network in training mode (P1): w_avg moves with every
    batch, and with probability `mixing` a batch of `mixing_batch` pictures takes its later style layers from second
    latents. Then z alone does not decide a picture.
    """

    count: int = setting(10_000, "Pictures.", low=1, high=MAX_FACES, flag="--count/-n")
    first_number: int = setting(0, "Name of the first: 0 is 000000.", low=0, high=MAX_NUMBER)
    first_seed: int = setting(0, "Picture n shows the seed FIRST_SEED + n.", low=0, high=MAX_SEED - 2 * MAX_NUMBER)
    batch: int = setting(4, "Pictures computed together.", low=1, high=4096)
    psi: float = setting(1.0, "Truncation; 1, as documented, is none.", low=0, high=1)
    layers: int = setting(
        0, "Style layers truncated; 0, as documented, is none.", low=0, high=100, flag="--truncation-layers"
    )
    labels: LabelMode = setting("none", "The label of a picture; normal: N(0,1) each.")
    train_mode: bool = setting(
        False, "As the published code sampled: styles mixed, w_avg moving.", flag="--train-mode/--eval-mode"
    )
    mixing: float = setting(0.9, "With --train-mode: how often styles are mixed.", low=0, high=1)
    mixing_batch: int = setting(4, "With --train-mode: pictures that are mixed together.", low=1, high=4096)

    def __post_init__(self) -> None:
        check(self, "sampling: ")

    @property
    def numbers(self) -> range:
        return range(self.first_number, self.first_number + self.count)


PRESETS: dict[str, SampleSettings] = {
    # The set of v1 to v5, from the original generator; 2,000 of it are labelled, 4,703 kept.
    "original-10k": SampleSettings(),
    # The set of v8 and v9, from the v1 generator with random labels; drawn one at a time, by a class without mixing.
    "finetune-v1-15k": SampleSettings(count=15_000, batch=1, labels="normal", mixing=0.0, mixing_batch=1),
}


def preset(name: str, **changes: Any) -> SampleSettings:
    """A documented set with some settings changed. Raises InvalidInputError naming the known ones."""
    return changed(pick(PRESETS, name, "sampling preset"), changes)
