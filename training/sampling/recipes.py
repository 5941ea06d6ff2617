"""What the documents sampled, as data (docs/spec/stylegan.md, section 6, and section 13, P1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ohlora.errors import InvalidInputError
from ohlora.faces import MAX_FACES, MAX_SEED

LabelMode = Literal["none", "normal", "zeros"]
LABEL_MODES: tuple[LabelMode, ...] = ("none", "normal", "zeros")


@dataclass(frozen=True)
class SampleSettings:
    """One set of sampled pictures, numbered first_number, first_number + 1, ...

    Picture number n shows the seed first_seed + n: its z and, with `labels="normal"`, its label are those of
    `ohlora render --faces SEED`. labels: none, normal (N(0,1) each) or zeros. batch: pictures computed together; a
    picture is the same in any batch up to float rounding. psi, layers: truncation; layers 0 is none.
    train_mode: sample as the published code did, which left the network in training mode (P1): w_avg moves with every
    batch, and with probability `mixing` a batch of `mixing_batch` pictures takes its later style layers from second
    latents. Then z alone does not decide a picture.
    """

    count: int = 10_000
    first_number: int = 0
    first_seed: int = 0
    batch: int = 4
    psi: float = 1.0
    layers: int = 0
    labels: LabelMode = "none"
    train_mode: bool = False
    mixing: float = 0.9
    mixing_batch: int = 4

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("count", self.count, 1, MAX_FACES),
            ("first_number", self.first_number, 0, 10**12),
            ("first_seed", self.first_seed, 0, MAX_SEED - 2 * 10**12),
            ("batch", self.batch, 1, 4096),
            ("psi", self.psi, 0.0, 1.0),
            ("layers", self.layers, 0, 100),
            ("mixing", self.mixing, 0.0, 1.0),
            ("mixing_batch", self.mixing_batch, 1, 4096),
        ):
            if not low <= value <= high:  # NaN fails too
                raise InvalidInputError(f"sampling: {name} must be in [{low:,}, {high:,}], got {value}")
        if self.labels not in LABEL_MODES:
            raise InvalidInputError(f"sampling: labels must be one of {', '.join(LABEL_MODES)}, got '{self.labels}'")

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
    if name not in PRESETS:
        raise InvalidInputError(f"unknown sampling preset '{name}': choose one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)
