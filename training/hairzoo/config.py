"""Recipes of the hair zoo. A recipe is data: one `ZooConfig`, one entry of PRESETS
(docs/spec/segmentation.md, section 8).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ohlora.errors import InvalidInputError
from ohlora.training.loop.precision import precision_name

SCHEDULERS = ("GradualWarmupSchedulerV2", "ReduceLROnPlateau", "CosineAnnealingLR", "CosineAnnealingWarmRestarts")
LOSSES = ("bce-dice", "dice")
PRECISIONS = ("fp32", "bf16", "fp16")
DATA_TYPES = ("celeb", "korean", "faces")
FOLDS = 5
DIVISOR = 32  # the deepest feature level of most encoders
DOCUMENTED_SIZE = 512  # pixels; the strengths of the distortions are given for it


@dataclass(frozen=True)
class ZooConfig:
    """A recipe.

    data_type: layout of the data folder: "celeb" (images/ID.jpg, masks/ID.png), "korean" (polygon tables) or "faces"
        (pictures with hair_soft/NAME.png).
    light: of the Korean set, only the first row of each `source`.
    fold: which of the FOLDS parts is held out; the others are trained on.
    encoder_weights: "none", "documented", "installed", a name that segmentation_models_pytorch knows for the encoder
        ("imagenet", "noisy-student" ...), or the path of a file.
    start_from: a checkpoint of the published layout, or one of ours, to go on from.
    encoder_lr: base learning rate of the whole network (the documented name); the default scheduler warms up to
        `warmup_factor` times it.
    min_lr: the least learning rate. With `floor` False the default scheduler and ReduceLROnPlateau ignore it, as
        published.
    accumulation: batches per optimizer step. clip_norm: of the gradient, 0 = off.
    """

    data_type: str = "celeb"
    encoder_type: str = "timm-efficientnet-b0"
    decoder_type: str = "Unet"
    encoder_weights: str = "none"
    start_from: str | None = None
    image_size: int = DOCUMENTED_SIZE
    light: bool = True
    fold: int = 0
    epochs: int = 20
    batch_size: int = 4
    loss: str = "bce-dice"
    scheduler: str = "GradualWarmupSchedulerV2"
    encoder_lr: float = 3e-5
    min_lr: float = 1e-6
    floor: bool = True
    warmup_epochs: int = 1
    warmup_factor: float = 10.0
    weight_decay: float = 1e-6
    accumulation: int = 1
    clip_norm: float = 5.0
    augment: bool = True
    precision: str = "fp32"
    seed: int = 42

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", precision_name(self.precision, PRECISIONS))
        for name, known in (("data_type", DATA_TYPES), ("loss", LOSSES), ("scheduler", SCHEDULERS)):
            if getattr(self, name) not in known:
                raise InvalidInputError(f"unknown {_option(name)} '{getattr(self, name)}': choose {' or '.join(known)}")
        if self.image_size < DIVISOR or self.image_size % DIVISOR:
            raise InvalidInputError(f"--img-size must be a multiple of {DIVISOR} pixels, got {self.image_size}")
        if not 0 <= self.fold < FOLDS:
            raise InvalidInputError(f"--fold must be 0 to {FOLDS - 1}, got {self.fold}")
        for name in ("epochs", "batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{_option(name)} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.encoder_lr < 1 or not self.warmup_factor >= 1:
            raise InvalidInputError(
                f"--encoder-lr must be between 0 and 1 and the warm-up factor at least 1, got {self.encoder_lr:g} and "
                f"{self.warmup_factor:g}"
            )
        if not 0 <= self.min_lr <= self.encoder_lr:
            raise InvalidInputError(
                f"--min-lr must be between 0 and --encoder-lr {self.encoder_lr:g}, got {self.min_lr:g}"
            )
        if self.scheduler == SCHEDULERS[0] and not 0 < self.warmup_epochs < self.epochs:
            raise InvalidInputError(
                f"{self.scheduler} warms up for {self.warmup_epochs} epoch and needs at least one more: --epochs is "
                f"{self.epochs}; choose more, or another --scheduler"
            )
        if not (self.weight_decay >= 0 and self.clip_norm >= 0 and self.seed >= 0):
            raise InvalidInputError(
                f"--weight-decay, --clip-norm and --seed must not be negative, got {self.weight_decay:g}, "
                f"{self.clip_norm:g} and {self.seed}"
            )

    @property
    def file_name(self) -> str:
        """Name of the checkpoint, as published: {encoder}_{decoder}_fold{fold}_{light}[_celeb].pth."""
        kind = {"celeb": "_light_celeb", "korean": "_light" if self.light else "_heavy", "faces": "_faces"}
        return f"{self.encoder_type}_{self.decoder_type}_fold{self.fold}{kind[self.data_type]}.pth"

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the one that began it: all but the means of computing."""
        fields = asdict(self)
        del fields["precision"]
        return fields


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


# The weights of `faces` come with a package of the train extra, so 48 pictures are enough to fine-tune.
PRESETS: dict[str, ZooConfig] = {
    "celeb": ZooConfig(),
    "korean": ZooConfig(data_type="korean", epochs=10),
    "faces": ZooConfig(
        data_type="faces",
        encoder_type="timm-tf_efficientnet_lite0",
        encoder_weights="installed",
        image_size=224,
        epochs=40,
        encoder_lr=1e-4,
    ),
}


def preset(name: str, **changes: Any) -> ZooConfig:
    """A named recipe with some fields changed. Raises InvalidInputError naming the known recipes."""
    if name not in PRESETS:
        raise InvalidInputError(f"unknown recipe '{name}': choose {' or '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)
