"""Recipes of the hair zoo. A recipe is data: one `ZooConfig`, one entry of PRESETS
(docs/spec/segmentation.md, section 8).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ohlora.base.recipe import changed, check, path_text, pick, setting
from ohlora.errors import InvalidInputError
from ohlora.training.loop.precision import precision_name

WARMING = "GradualWarmupSchedulerV2"
PRECISIONS = ("fp32", "bf16", "fp16")
FOLDS = 5
DIVISOR = 32  # the deepest feature level of most encoders
DOCUMENTED_SIZE = 512  # pixels; the strengths of the distortions are given for it


@dataclass(frozen=True)
class ZooConfig:
    """A recipe.

    data_type: layout of the data folder: "celeb" (images/ID.jpg, masks/ID.png), "korean" (polygon tables) or "faces"
        (pictures with hair_soft/NAME.png).
    encoder_weights: "none", "documented", "installed", a name that segmentation_models_pytorch knows for the encoder
        ("imagenet", "noisy-student" ...), or the path of a file.
    encoder_lr: base learning rate of the whole network (the documented name); the default scheduler warms up to
        `warmup_factor` times it.
    """

    data_type: Literal["celeb", "korean", "faces"] = setting("celeb", "Layout of the data.")
    encoder_type: str = setting("timm-efficientnet-b0", "E.g. timm-efficientnet-b0, se_resnext50_32x4d; see --list.")
    decoder_type: str = setting("Unet", "Unet, UnetPlusPlus, FPN ...; see --list.")
    encoder_weights: str = setting(
        "none", "none, documented, imagenet, noisy-student (these are downloaded), installed, or a file."
    )
    start_from: str | None = setting(None, "Go on from a checkpoint (.pth, published layout).", read=path_text)
    image_size: int = setting(
        DOCUMENTED_SIZE, "Pixels a side, a multiple of 32.", low=DIVISOR, step=DIVISOR, flag="--img-size"
    )
    light: bool = setting(True, "Korean set: only the first row of each source, or all rows.", flag="--light/--heavy")
    fold: int = setting(0, "0 to 4: which fifth is held out.", low=0, high=FOLDS - 1)
    epochs: int = setting(20, "Passes over the pictures.", low=1)
    batch_size: int = setting(4, "Pictures at once.", low=1)
    loss: Literal["bce-dice", "dice"] = setting("bce-dice", "What is minimised; bce-dice as documented.")
    scheduler: Literal[
        "GradualWarmupSchedulerV2", "ReduceLROnPlateau", "CosineAnnealingLR", "CosineAnnealingWarmRestarts"
    ] = setting("GradualWarmupSchedulerV2", "Of the learning rate.")
    encoder_lr: float = setting(3e-5, "Base learning rate.", above=0, below=1)
    min_lr: float = setting(1e-6, "Least learning rate.", low=0)
    floor: bool = setting(True, "Keep --min-lr always, or ignore it where the published program does.")
    warmup_epochs: int = setting(1, "Epochs over which the rate of the default scheduler rises ...")
    warmup_factor: float = setting(10.0, "... to so many times --encoder-lr.", low=1)
    weight_decay: float = setting(1e-6, "Of the optimizer.", low=0)
    accumulation: int = setting(1, "Batches per step.", low=1)
    clip_norm: float = setting(5.0, "Of the gradient; 0 = off.", low=0)
    augment: bool = setting(True, "Distort the pictures.")
    precision: str = setting("fp32", "fp32, bf16, or fp16 (CUDA).", read=lambda text: precision_name(text, PRECISIONS))
    seed: int = setting(42, "Of everything drawn at random.", low=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", precision_name(self.precision, PRECISIONS))
        check(self)
        if self.min_lr > self.encoder_lr:
            raise InvalidInputError(
                f"--min-lr must be between 0 and --encoder-lr {self.encoder_lr:g}, got {self.min_lr:g}"
            )
        if self.scheduler == WARMING and not 0 < self.warmup_epochs < self.epochs:
            raise InvalidInputError(
                f"{self.scheduler} warms up for {self.warmup_epochs} epoch and needs at least one more: --epochs is "
                f"{self.epochs}; choose more, or another --scheduler"
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
    return changed(pick(PRESETS, name, "recipe"), changes)
