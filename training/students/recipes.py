"""Recipes of the stages `distill` and `parsing`. A recipe is data: one `DistillConfig`, one entry of PRESETS."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ohlora.base.recipe import changed, check, path_text, pick, setting
from ohlora.errors import InvalidInputError
from ohlora.training.data import RESOLUTION
from ohlora.training.data.augment import Augmentation
from ohlora.training.nets.choices import DOCUMENTED_ENCODER, SHIPPED_ENCODER, STUDENT_SIZE


@dataclass(frozen=True)
class PortraitMix:
    """Portraits beside the real pictures (`sources.py`).

    share: of an epoch's pictures; the real ones are all in every epoch. The share is divided equally between the
        portraits and the generated pairs that are asked for.
    portraits: number of seeds to paint from, on the fly; folder: a data set of `ohlora train portraits` instead.
    held_out: pictures of each kind that are measured and never trained on.
    """

    share: float = setting(0.5, "Part of an epoch that is painted or generated.", flag="--portrait-share")
    portraits: int = 2000
    folder: str | None = None
    generator: str | None = setting(
        None, "Mix in pictures of this portrait-trained generator (.safetensors, bundle).", flag="--generated"
    )
    generated: int = setting(1000, "How many.", low=1, flag="--generated-count")
    resolution: int = RESOLUTION
    held_out: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InvalidInputError(
                f"--portrait-share must be between 0 and 1, got {self.share:g}: for portraits alone, make a folder "
                "with `ohlora train portraits` and give it as --data"
            )
        check(self, "portraits: ")
        if min(self.portraits, self.held_out - 1) < 0:
            raise InvalidInputError(f"numbers of portraits must not be negative, held-out ones at least 1: {self}")
        if not (self.portraits or self.folder) and not (self.generator and self.generated):
            raise InvalidInputError("a portrait share without portraits: give --portraits or --generated")


def parse_phases(text: str) -> tuple[tuple[int, int], ...]:
    """ "128:60,224:28" -> ((128, 60), (224, 28)). Sizes must be multiples of 32."""
    try:
        phases = tuple((int(size), int(epochs)) for size, epochs in (part.split(":") for part in text.split(",")))
    except ValueError as error:
        raise InvalidInputError(f"phases '{text}' are not understood: write SIZE:EPOCHS,SIZE:EPOCHS") from error
    if any(size < 64 or size % 32 or epochs < 1 for size, epochs in phases):
        raise InvalidInputError(f"phases '{text}': sizes are multiples of 32 from 64 on, epochs at least 1")
    return phases


@dataclass(frozen=True)
class DistillConfig:
    """A recipe. phases: (picture size, epochs) in order; small pictures first learn several times faster on a CPU."""

    encoder: str = setting(SHIPPED_ENCODER, "Any timm model with five feature levels.")
    imagenet: bool = setting(True, "Start from ImageNet weights.")
    loss: str = setting("soft_bce", "soft_bce, mse or kl.", choices=("soft_bce", "mse", "kl"))
    phases: tuple[tuple[int, int], ...] = setting(
        ((128, 60), (STUDENT_SIZE, 28)), "SIZE:EPOCHS,... in order, e.g. 128:60,224:28.", read=parse_phases
    )
    batch_size: int = setting(16, "Pictures a step.", low=2)
    learning_rate: float = setting(2e-3, "Of AdamW, at its highest.", low=0)
    encoder_rate: float = setting(0.5, "Times --learning-rate, for pretrained layers.", low=0)
    weight_decay: float = setting(0.02, "Of AdamW.", low=0)
    warmup_steps: int = setting(60, "Steps over which the rate rises.", low=0)
    schedule: Literal["cosine", "exponential"] = setting("cosine", "Of the rate; exponential: times 0.975 an epoch.")
    ema: float = setting(0.998, "Decay of the weight average; 0 = off.", low=0, below=1)
    clip_norm: float = setting(1.0, "Of the gradient; 0 = off.", low=0)
    drop_path: float = setting(0.1, "Probability that a block of the encoder is left out.", low=0, below=1)
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    split: Literal["people", "random"] = setting(
        "people", "How pictures are held out; random: by picture, 80 / 10 / 10 as documented."
    )
    holdout: float = setting(0.2, "Share of people held out; 0 trains on all, nothing is measured.", low=0, high=0.9)
    patience: int = setting(40, "Epochs without a better validation loss, counted in the last phase.", low=1)
    evaluate_every: int = setting(5, "Epochs from one measurement to the next.", low=1)
    start_from: str | None = setting(None, "Go on from a student's .safetensors.", read=path_text)
    seed: int = setting(7, "Of split, order, weights and augmentation.")
    mix: PortraitMix | None = None  # portraits beside the real pictures
    reduction: Literal["mean", "sum"] = setting(
        "mean", "Of the loss that is descended; sum, as documented, scales AdamW's epsilon."
    )
    precision: Literal["fp32", "bf16"] = setting(
        "fp32", "Of forward and backward passes; bf16 halves the time where the CPU has it."
    )
    encoder_weights: str | None = setting(None, "The documented start: efficientnet-b0-355c32eb.pth.", read=path_text)

    def __post_init__(self) -> None:
        check(self)

    @property
    def epochs(self) -> int:
        return sum(epochs for _, epochs in self.phases)

    def size_at(self, epoch: int) -> int:
        for size, epochs in self.phases:
            if epoch < epochs:
                return size
            epoch -= epochs
        return self.phases[-1][0]

    def as_dict(self) -> dict[str, Any]:
        """For reports and to recognise a run; without what newer fields say by default, as older runs were written."""
        content = asdict(self)
        if self.augmentation is not None and not self.augmentation.companion:
            del content["augmentation"]["companion"]
        return {key: value for key, value in content.items() if not (key in NEWER and value == NEWER[key])}


NEWER: dict[str, Any] = {
    "mix": None,
    "reduction": "mean",
    "encoder_weights": None,
    "outputs": 11,
    "hair": 0.0,
    "precision": "fp32",
}


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
    outputs: int = setting(
        11, "Classes: the 11 documented, or 13 with glasses and hats.", low=11, high=13, step=1, flag="--classes"
    )
    hair: float = setting(0.0, "Weight of a further loss on hair against everything else.", low=0, flag="--hair-loss")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outputs == 12:
            raise InvalidInputError("classes must be 11 or 13, got 12")


# The documented one first: it is the default of `ohlora train distill`.
PRESETS: dict[str, DistillConfig] = {
    "documented": DistillConfig(
        encoder=DOCUMENTED_ENCODER,
        imagenet=False,
        phases=((STUDENT_SIZE, 240),),
        learning_rate=1e-4,
        encoder_rate=1.0,
        weight_decay=0.01,
        warmup_steps=0,
        schedule="exponential",
        ema=0.0,
        clip_norm=0.0,
        drop_path=0.2,
        augmentation=None,
        split="random",
        patience=20,
        evaluate_every=1,
        reduction="sum",
    ),
    "few-faces": DistillConfig(),
    # Goes on from a student of real faces: a few epochs are enough to learn the drawn ones (--start-from).
    "portraits": DistillConfig(
        phases=((STUDENT_SIZE, 7),),
        learning_rate=6e-4,
        warmup_steps=40,
        evaluate_every=1,
        patience=7,
        mix=PortraitMix(),
    ),
}
# Of `train parsing`. faces: from thousands of photographic faces, for hair and face parser at once.
PARSERS: dict[str, ParsingConfig] = {
    "short": ParsingConfig(),
    "faces": ParsingConfig(
        phases=((160, 10), (STUDENT_SIZE, 8)),
        learning_rate=1.5e-3,
        warmup_steps=100,
        evaluate_every=1,
        patience=8,
        augmentation=Augmentation(companion=0.15),
        mix=PortraitMix(share=0.15),
        outputs=13,
        hair=1.0,
    ),
}
FINE_TUNING = ("portraits",)


def preset(name: str, **changes: Any) -> DistillConfig:
    """A named recipe with some fields changed. Raises InvalidInputError naming the known recipes."""
    recipe = pick(PRESETS, name, "recipe")
    if name in FINE_TUNING and not changes.get("start_from"):
        raise InvalidInputError(
            f"recipe '{name}' goes on from a trained student: give its .safetensors as --start-from"
        )
    return changed(recipe, changes)


def with_portraits(config: DistillConfig, portraits: str | None, **changes: Any) -> DistillConfig:
    """The recipe with --portraits (a number or a folder) and changed fields of its mix. Without --portraits a recipe
    keeps its own portraits; without both it stays as it is.
    """
    mix, generator = config.mix, changes.get("generator")
    if portraits is not None:
        number = portraits.isdecimal()
        changes |= {"portraits": int(portraits) if number else 0, "folder": None if number else portraits}
    if mix is None and changes:
        if portraits is None and generator is None:
            raise InvalidInputError("--generated-count and --portrait-share need --portraits or --generated")
        mix = PortraitMix() if generator is None else PortraitMix(portraits=0, generator=generator)
    return config if mix is None else replace(config, mix=replace(mix, **changes))
